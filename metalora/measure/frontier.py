"""Two methods compared on the frontier of likeness and prompt: one of them at equal values of the other.

More steps, a higher rate or a higher rank all buy likeness with prompts, so a method's likeness alone says how far it
went. What a method reaches at its settings is a curve of one score over another; a method is better if it lies above
the other's curve.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from .intervals import Interval, crossed

Scores = Mapping[str, Mapping[str, float]]  # by identity, then by image: one prompt and noise, the same for everyone


def above(
    score: Scores, at: Scores, curve: Sequence[tuple[Scores, Scores]], level: float = 0.95, seed: int = 0
) -> Interval | None:
    """One setting's `score` minus that of another method's curve where both have the same `at`, paired by image.

    `curve` has (score, at) of each of the other's settings. None where the curve does not reach this mean of `at`, or
    where fewer than two identities have all scores. Between two neighbours a and b of the curve it is straight. With w
    where the mean of `at` lies between theirs, the difference of an image is

        d = (score - own mix of a's and b's) - slope * (at - own mix of a's and b's),

    whose mean is the distance sought, since the second bracket is 0 in the mean; in the interval it stands for not
    knowing exactly where the setting lies along the curve (the delta method). The slope itself counts as known. The
    interval is over people and over images (`crossed`). An image that lacks a score in one setting is left out of all.
    """
    own, *others = aligned([(score, at), *curve])
    if own.shape[1] < 2:
        return None
    place = center(own[1])
    for a, b in pairwise(sorted(others, key=lambda point: center(point[1]))):
        (score_a, low), (score_b, high) = map(center, a), map(center, b)
        if low <= place <= high and low < high:
            share, slope = (place - low) / (high - low), (score_b - score_a) / (high - low)
            difference, aside = own - (1 - share) * a - share * b
            return crossed(difference - slope * aside, level, seed=seed)
    return None


def aligned(points: Sequence[tuple[Scores, Scores]]) -> list[np.ndarray]:
    """Each point's two scores [2, identities, images]: of who has both in all points; NaN where one lacks an image."""
    parts = [part for point in points for part in point]
    people = sorted(set.intersection(*(set(part) for part in parts)))
    images = sorted({image for part in parts for name in people for image in part[name]})
    values = np.array([[[part[name].get(image, np.nan) for image in images] for name in people] for part in parts])
    values = values.reshape(len(parts), len(people), len(images))
    values[:, np.isnan(values).any(axis=0)] = np.nan
    seen = ~np.isnan(values[0]).all(axis=1) if len(images) else np.zeros(len(people), dtype=bool)
    return list(values[:, seen].reshape(len(points), 2, -1, len(images)))


def center(values: np.ndarray) -> float:
    """The mean over identities of the mean over images [identities, images]."""
    return float(np.nanmean(values, axis=1).mean())

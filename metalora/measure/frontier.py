"""Two methods compared on the frontier of likeness and prompt: one of them at equal values of the other.

More steps, a higher rate or a higher rank all buy likeness with prompts, so a method's likeness alone says how far it
went. What a method reaches at its settings is a curve of one score over another; a method is better if it lies above
the other's curve.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from .intervals import Interval, bootstrap

Scores = Mapping[str, float]  # by identity


def above(
    score: Scores, at: Scores, curve: Sequence[tuple[Scores, Scores]], level: float = 0.95, seed: int = 0
) -> Interval | None:
    """One setting's `score` minus that of another method's curve where both have the same `at`, paired by identity.

    `curve` has (score, at) of each of the other's settings. None where the curve does not reach this mean of `at`, or
    where fewer than two identities have all scores. Between two neighbours a and b of the curve it is straight. With w
    where the mean of `at` lies between theirs, a person's difference is

        d = (score - own mix of a's and b's) - slope * (at - own mix of a's and b's),

    whose mean is the distance sought, since the second bracket is 0 in the mean; in the interval it stands for not
    knowing exactly where the setting lies along the curve (the delta method). The slope itself counts as known.
    """
    points = [(score, at), *curve]
    people = sorted(set.intersection(*(set(part) for point in points for part in point)))
    if len(people) < 2:
        return None
    own, *others = (np.array([[part[name] for name in people] for part in point]) for point in points)
    place = own[1].mean()
    for a, b in pairwise(sorted(others, key=lambda point: point[1].mean())):
        (score_a, low), (score_b, high) = a.mean(axis=1), b.mean(axis=1)
        if low <= place <= high and low < high:
            share, slope = (place - low) / (high - low), (score_b - score_a) / (high - low)
            difference, aside = own - (1 - share) * a - share * b
            return bootstrap(list(difference - slope * aside), level, seed=seed)
    return None

"""Likeness at equal CLIP-T: whether a method balances the two better, or only sits elsewhere on the same curve.

More steps, a higher learning rate or a higher rank all buy likeness with prompts. So a method's likeness alone, at any
step count, says how far it went. What LoRA + crops has at its step counts, and the base without a LoRA before the first
of them, is a curve of R-FaceSim over CLIP-T; a method is better if it lies above that curve.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean

import numpy as np

from metalora.config import FEWEST_PEOPLE
from metalora.measure.intervals import bootstrap
from metalora.store.report.results import Figure, Results, Variant

from .reproduce_figures import CLIP_T, R_FACESIM, line, values


def above_the_curve(variant: Variant, curve: Sequence[Variant]) -> Figure | None:
    """R-FaceSim minus that of the curve at the variant's CLIP-T; None where the curve does not go there.

    Between two neighbours a and b of the curve it is straight. With w where the variant's mean CLIP-T lies between
    theirs, a person's difference is

        d = (likeness - own mix of a's and b's) - slope * (CLIP-T - own mix of a's and b's),

    whose mean is the distance sought, since the second bracket is 0 in the mean; in the interval it stands for not
    knowing exactly where the variant lies along the curve (the delta method). The slope itself counts as known.
    """
    scores = [(values(one, R_FACESIM), values(one, CLIP_T)) for one in (variant, *curve)]
    people = sorted(set.intersection(*(set(score) for both in scores for score in both)))
    if not people:
        return None
    own, *points = (np.array([[score[name] for name in people] for score in both]) for both in scores)
    place = own[1].mean()
    for a, b in pairwise(sorted(points, key=lambda point: point[1].mean())):
        (like_a, low), (like_b, high) = a.mean(axis=1), b.mean(axis=1)
        if low <= place <= high and low < high:
            share, slope = (place - low) / (high - low), (like_b - like_a) / (high - low)
            likeness, prompt = own - (1 - share) * a - share * b
            return figure_of(list(likeness - slope * prompt))
    return None


def figure_of(distances: list[float]) -> Figure:
    """Their mean, with an interval where there are people enough for one."""
    if len(distances) < FEWEST_PEOPLE:
        return Figure(mean(distances), None, None, len(distances))
    found = bootstrap(distances)
    return Figure(found.mean, found.low, found.high, found.count)


def curve_of(results: Results, rank: int | None) -> list[Variant]:
    """LoRA + crops at a rank, and the base alone: where every training begins."""
    base = [variant for variant in results.variants if variant.method == "none"]
    return [*base, *line(results, "lora-crops", rank)]

"""Methods of finished runs on the frontier of likeness and prompt: each setting of one against the curve of another.

More steps, a higher rate or a higher rank all buy likeness with prompts, so a method's likeness alone says how far it
went. What a method reaches at its settings is a curve of one score over another; a method is better if it lies above
the other's curve.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np

from ...config import FEWEST_PEOPLE, Phase, UserError
from ...measure.intervals import Interval, crossed
from ...store.files import write_bytes
from ...store.report.results import Embedder, Results, Variant, read_results
from .. import Job
from ..plots import frontier_plot

Scores = Mapping[str, Mapping[str, float]]  # by identity, then by image: one prompt and noise, the same for everyone
LIKENESS, PROMPT, BACKGROUND = "R-FaceSim", "CLIP-T", "background"


@dataclass(frozen=True)
class Setting:
    """One variant of one run: every image's scores, by person."""

    run: str
    label: str
    short: str  # the same within a plot of few methods
    scores: Mapping[str, Scores]

    def mean(self, score: str) -> float:
        """Over people; NaN where nobody has this score."""
        values = self.scores[score].values()
        return mean(mean(images.values()) for images in values) if values else float("nan")


@dataclass(frozen=True)
class Placed:
    """A setting, and how far above the other method's curve it lies; None where that does not go there."""

    setting: Setting
    likeness: Interval | None  # at equal CLIP-T
    prompt: Interval | None  # at equal R-FaceSim
    background: Interval | None  # at equal R-FaceSim


def frontier(runs: Sequence[Path], curve: Sequence[Path], only: Sequence[str], plot: Path | None) -> Job[list[Placed]]:
    """Every setting of `runs` against the curve that the settings of `curve` make together.

    `only`: people with this in their names. `plot`: a PNG of both.
    """
    yield Phase(f"reading {len(runs) + len(curve)} runs")
    found = {str(run): read_results(run) for run in (*runs, *curve)}
    check_comparable(found)
    ours, theirs = ([one for run in group for one in settings(found[str(run)], only)] for group in (runs, curve))
    if len(theirs) < 2:
        raise UserError(f"A curve needs two settings, such as two step counts; {curve[0]} has {len(theirs)}.")
    people = set.intersection(*(set(one.scores[LIKENESS]) for one in (*ours, *theirs)))
    if len(people) < FEWEST_PEOPLE:
        raise UserError(f"{len(people)} people have a score in every setting; at least {FEWEST_PEOPLE} are needed.")
    theirs = undominated(theirs)
    if plot is not None:
        names = (" ".join(path.name for path in paths) for paths in (runs, curve))
        points = [[(one.mean(PROMPT), one.mean(LIKENESS), one.short) for one in group] for group in (ours, theirs)]
        write_bytes(plot, frontier_plot(dict(zip(names, points, strict=True))))
    return [placed(one, theirs) for one in ours]


def undominated(settings: Sequence[Setting]) -> list[Setting]:
    """Those that no other one beats in both likeness and prompt: what a method reaches at its best."""

    def beaten(one: Setting) -> bool:
        return any(
            other.mean(LIKENESS) > one.mean(LIKENESS) and other.mean(PROMPT) > one.mean(PROMPT) for other in settings
        )

    return [one for one in settings if not beaten(one)]


def placed(own: Setting, theirs: Sequence[Setting]) -> Placed:
    """One setting against a curve."""

    def distance(score: str, at: str) -> Interval | None:
        points = [(one.scores[score], one.scores[at]) for one in theirs]
        return above(own.scores[score], own.scores[at], points)

    return Placed(own, distance(LIKENESS, PROMPT), distance(PROMPT, LIKENESS), distance(BACKGROUND, LIKENESS))


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


def settings(results: Results, only: Sequence[str]) -> list[Setting]:
    """The variants of a run, on these people."""
    people = {
        person.identity
        for person in results.people
        if person.held_out and (not only or any(text in person.identity for text in only))
    }
    return [
        Setting(results.folder.name, one.label, short_label(one), scores_of(one, people)) for one in results.variants
    ]


def short_label(variant: Variant) -> str:
    """Steps and rank; the label of what has none."""
    return variant.label if variant.steps is None else f"{variant.steps} steps, r{variant.rank}"


def scores_of(variant: Variant, people: set[str]) -> Mapping[str, Scores]:
    """By name, then by person and image; a face score only where a face was found."""
    scores: dict[str, dict[str, dict[str, float]]] = {LIKENESS: {}, PROMPT: {}, BACKGROUND: {}}
    for image in variant.images:
        if image.identity not in people:
            continue
        shown = None if image.shown is None else image.shown.get("background")
        found = {LIKENESS: image.held_out if image.faces else None, PROMPT: image.clip_t, BACKGROUND: shown}
        for name, value in found.items():
            if value is not None:
                scores[name].setdefault(image.identity, {})[f"{image.prompt} {image.seed}"] = value
    return scores


def check_comparable(runs: Mapping[str, Results]) -> None:
    """Refuse runs that differ in what they measured or with what; every difference in one message."""
    facts = {name: _facts(results) for name, results in runs.items()}
    problems = []
    for fact in next(iter(facts.values())):
        found = {name: value for name, values in facts.items() if (value := values[fact]) is not None}
        if len(set(found.values())) > 1:
            problems.append(f"{fact}: " + ", ".join(f"{_shortened(value)} in {name}" for name, value in found.items()))
    if problems:
        listed = "\n  ".join(problems)
        raise UserError(
            f"These runs cannot be compared, because they differ in\n  {listed}\nCompare runs of one manifest, "
            "one file of prompts and one embedder; `metalora benchmark report` shows a run by itself."
        )


def _facts(results: Results) -> dict[str, str | None]:
    """What must be the same; None where a run did without, and so has no score of it to be ranked."""
    people = sorted(person.identity for person in results.people)
    prompts = sorted(prompt.id for prompt in results.prompts)
    gallery = sorted(results.gallery)
    return {
        "the manifest's sha256": results.manifest_sha256,
        "the prompts' sha256": results.prompts_sha256,
        "the face embedder": _identified(results.faces),
        "CLIP": _identified(results.clip),
        "the people": f"{len(people)} ({', '.join(people)})",
        "the gallery": f"{len(gallery)} ({', '.join(gallery)})",
        "the prompts": f"{len(prompts)} ({', '.join(prompts)})",
    }


def _identified(embedder: Embedder | None) -> str | None:
    return None if embedder is None else f"{embedder.name} {embedder.sha256}"


def _shortened(value: str) -> str:
    """A hash by its first digits, a long list by its beginning."""
    value = re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1...", value)
    return value if len(value) <= 60 else value[:57] + "..."

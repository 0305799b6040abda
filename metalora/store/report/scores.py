"""The scores of a report: what they are called, what they say, how they are written, and all of them as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

from ...config import FEWEST_PEOPLE
from .results import Comparison, Figure, ImageRow, Misses, Results, Variant

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EM DASH}"
TOO_FEW = f"fewer than {FEWEST_PEOPLE} people"
INTERVAL = tuple(field.name for field in fields(Figure))


@dataclass(frozen=True)
class Score:
    """One score; `key` is its name in results.json. What it says stands in templates/meanings.html."""

    key: str
    title: str
    digits: int = 3


R_FACESIM, FACESIM = Score("r_facesim", "R-FaceSim"), Score("facesim", "FaceSim")
COPYING, IDENTIFIED = Score("copying", "Copying"), Score("identified", "Identified")
CLIP_T, CLIP_I = Score("clip_t", "CLIP-T", 2), Score("clip_i", "CLIP-I", 2)
FACES = (R_FACESIM, FACESIM, COPYING, IDENTIFIED)
ALL = (*FACES, CLIP_T, CLIP_I)
AS_ZERO = "R-FaceSim, no face = 0"


def shown_scores(results: Results) -> list[Score]:
    """One for each attribute that has alternatives."""
    return [Score(f"shown.{name}", f"{name.capitalize()} as asked") for name in results.alternatives]


def present(results: Results) -> list[Score]:
    """The scores that some variant has, be it only with missing faces as 0."""
    return [
        score
        for score in (*ALL, *shown_scores(results))
        if any(variant.figure(score.key) or variant.figure(score.key, "as zero") for variant in results.variants)
    ]


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """With a real minus sign; a dash where there is nothing."""
    if value is None:
        return NOTHING
    value = round(value, digits) + 0.0  # no minus before 0.000
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", MINUS)


def counted(count: int, thing: str) -> str:
    """`1 image`, `2 images`, `3 people`."""
    if count == 1:
        return f"1 {thing}"
    return f"{count} people" if thing == "person" else f"{count} {thing}s"


def share(value: float | None) -> str:
    """As a percentage; 100.0% only when it is all of it."""
    if value is None:
        return NOTHING
    text = f"{value:.1%}".replace("-", MINUS)
    return "99.9%" if text == "100.0%" and value < 1 else text


def interval(figure: Figure | Comparison, digits: int, signed: bool = False) -> str:
    """`0.58 to 0.64`."""
    if figure.low is None or figure.high is None:
        return f"no interval: {TOO_FEW}"
    return f"{number(figure.low, digits, signed)} to {number(figure.high, digits, signed)}"


def ranked(results: Results, score: str, misses: Misses = "left out") -> list[Variant]:
    """The variants that have the score, the highest first; those with missing images after all others.

    Who leaves out the hard prompts must not come first by it.
    """
    figures = [(variant, variant.figure(score, misses)) for variant in results.variants]
    scored = [(variant, figure.mean) for variant, figure in figures if figure]
    return [variant for variant, _ in sorted(scored, key=lambda pair: (bool(pair[0].missing), -pair[1]))]


def comparison(results: Results, one: Variant, other: Variant, score: str, misses: Misses | None) -> Comparison | None:
    """The paired difference one minus other, whichever way round it was written down."""
    for found in results.comparisons:
        if (found.score, found.misses) != (score, misses):
            continue
        if (found.one, found.other) == (one.id, other.id):
            return found
        if (found.one, found.other) == (other.id, one.id):
            return turned(found)
    return None


def turned(found: Comparison) -> Comparison:
    """The same difference the other way round."""
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return replace(found, one=found.other, other=found.one, mean=-found.mean, low=low, high=high)


def verdict(found: Comparison) -> str:
    """Whether the interval tells the two apart."""
    if found.low is None or found.high is None:
        return TOO_FEW
    return "yes" if found.low > 0 or found.high < 0 else "no"


def images_csv(results: Results) -> bytes:
    """One row an image."""
    people = {person.identity: person for person in results.people}
    scores = [field.name for field in fields(ImageRow)]
    columns = ["variant", "method", "label", "steps", "rank", "class", "part", *scores]
    return _written(
        columns,
        (
            [*_named(variant), people[image.identity].class_name, people[image.identity].part, *asdict(image).values()]
            for variant in results.variants
            for image in variant.images
        ),
    )


def variants_csv(results: Results) -> bytes:
    """One row a score of a variant, with its interval; those of faces twice, as `misses` says."""
    figures = [(score, "left out" if score in FACES else "") for score in (*ALL, *shown_scores(results))]
    figures += [(score, "as zero") for score in FACES if score != IDENTIFIED]
    return _written(
        ["variant", "method", "label", "steps", "rank", "score", "misses", *INTERVAL],
        (
            [*_named(variant), score.key, misses, *astuple(figure)]
            for variant in results.variants
            for score, misses in figures
            if (figure := variant.figure(score.key, "as zero" if misses == "as zero" else "left out"))
        ),
    )


def _named(variant: Variant) -> list[Any]:
    return [variant.id, variant.method, variant.label, variant.steps, variant.rank]


def _written(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8")


def _plain(cell: Any) -> Any:
    """The cell; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell

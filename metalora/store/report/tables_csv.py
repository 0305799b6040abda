"""The same numbers for a spreadsheet: one row an image, one row a variant."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from .results import ImageRow, Results, Variant
from .scores import ALL, TOO_FEW, shown_scores

INTERVAL = ("mean", "low", "high", "count")


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
    """One row a variant; every score with its interval, those of faces also with misses counted as zero.

    `no_interval` says why ends are empty where a mean is there.
    """
    figures = [(score.key, "left out") for score in (*ALL, *shown_scores(results))]
    figures += [(score.key, "as zero") for score in ALL[:3]]  # the scores that need a face
    columns = ["variant", "method", "label", "steps", "rank"]
    columns += [f"{key}{'_as_zero' * (misses == 'as zero')}_{end}" for key, misses in figures for end in INTERVAL]
    columns += ["detection_rate", "position", "images", "missing", "no_interval"]
    return _written(columns, (_variant_row(variant, figures) for variant in results.variants))


def _variant_row(variant: Variant, figures: Sequence[tuple[str, Any]]) -> list[Any]:
    cells: list[Any] = _named(variant)
    for key, misses in figures:
        figure = variant.figure(key, misses)
        cells += [None] * len(INTERVAL) if figure is None else [getattr(figure, end) for end in INTERVAL]
    summary = variant.summary
    figures_there = [figure for key, misses in figures if (figure := variant.figure(key, misses))]
    why = TOO_FEW if any(figure.low is None for figure in figures_there) else None
    return [*cells, summary["detection_rate"], summary["position"], len(variant.images), len(variant.missing), why]


def _named(variant: Variant) -> list[Any]:
    return [variant.id, variant.method, variant.label, variant.steps, variant.rank]


def _written(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")

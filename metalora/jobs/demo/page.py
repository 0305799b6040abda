"""What the demo made, as one HTML page that needs no other file, and in a few lines for a terminal.

The sentences of both stand in the templates of store/report.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from statistics import mean
from typing import Any

from ...config import NONE, PersonalizeConfig
from ...measure.similarity import position
from ...store.files import write_bytes
from ...store.images import decode, read_photo
from ...store.pictures import save_image, table
from ...store.report.page import render
from ...store.report.pictures import jpeg_uri
from ..benchmark.results import figure
from ..generate import Image
from .people import DemoPerson
from .scores import MethodScores, Scores

META_LORA, CONTROL = "Meta-LoRA", "Meta-LoRA (random Meta-Down)"
MISSING = "-"
# A plain LoRA's steps at which its images follow the prompt as well as Meta-LoRA's: what is left to see is likeness.
EQUALLY_OBEDIENT = {"miniature": 110}
COLUMNS = ("", "likeness", "of the way", "CLIP-T", "faces found", "steps", "rank", "seconds a person", "a LoRA file")


def labels_of(methods: Iterable[str], trained: bool) -> dict[str, str]:
    """What each method is called on the page; a Meta-Down that has learned nothing is not to be taken for one."""
    names = {NONE: "without a LoRA", "lora": "plain LoRA", "meta-lora": META_LORA if trained else CONTROL}
    return {method: names[method] for method in methods}


@dataclass(frozen=True)
class Trained:
    """How a method learned all people at once, and what it left."""

    config: PersonalizeConfig
    losses: list[float]  # one a step, the mean over people
    seconds: float | None  # of all steps, of all people together; None: an earlier call made them
    loras: Sequence[Path]


@dataclass(frozen=True)
class Demonstration:
    """Images by method and person, what was trained, and how like the people they are."""

    preset: str
    people: Sequence[DemoPerson]
    labels: dict[str, str]  # by method, none first
    images: Mapping[str, list[list[Image]]]  # by method, person by person, prompt by prompt
    trained: dict[str, Trained]  # by method; the last is the one that the page is about
    scores: Scores | None
    crops: Path | None  # a sheet; None: the whole photo was learned from
    curve: Path
    page: Path
    seconds: float


@dataclass(frozen=True)
class Shown:
    """One prompt of one person: a photo of them, then an image of every method."""

    person: DemoPerson
    photo: Path
    learned: bool  # whether the photo is the one that was learned from
    prompt: str
    images: dict[str, Image]  # by method


def write_page(made: Demonstration) -> None:
    """`index.html`, with every picture inside it; and `people.jpg`, its first screen."""
    rows = rows_of(made)
    shown = [
        [(read_photo(row.photo), "the photo")] + [(read_photo(row.images[m].path), made.labels[m]) for m in made.labels]
        for row in rows
        if row.prompt == row.person.prompts[0]
    ]
    save_image(table(shown), made.page.with_name("people.jpg"))
    lines = [numbers(made, method) for method in made.labels]
    page = said("demo.html", made, rows=rows, lines=lines, columns=COLUMNS, picture_uri=picture_uri)
    write_bytes(made.page, page.encode())


def summary(made: Demonstration) -> str:
    """A table of what was measured, and what there is to say of it, for a terminal."""
    rows = [COLUMNS, *(numbers(made, method)["cells"] for method in made.labels)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return unescape(said("demo.txt", made, table="\n".join(lines)))


def said(template: str, made: Demonstration, **values: Any) -> str:
    """A template of the demo."""
    known = {"difference": difference, "EQUALLY_OBEDIENT": EQUALLY_OBEDIENT, "CONTROL": CONTROL}
    return render(template, made=made, **known, **values)


def rows_of(made: Demonstration) -> list[Shown]:
    """Everyone's prompts. The photo beside the first is the one that was learned from, beside others one that was not.

    Of a person without such photos all prompts stand beside the one.
    """
    rows = []
    for index, person in enumerate(made.people):
        photos = [person.portrait, *person.unseen]
        for k, prompt in enumerate(person.prompts):
            photo = photos[k % len(photos)]
            images = {method: made.images[method][index][k] for method in made.labels}
            rows.append(Shown(person, photo, photo == person.portrait, prompt, images))
    return rows


def difference(one: dict[str, float], other: dict[str, float]) -> dict[str, Any] | None:
    """The mean difference over people who have both scores, with its interval."""
    return figure({name: one[name] - other[name] for name in one.keys() & other.keys()})


def numbers(made: Demonstration, method: str) -> dict[str, Any]:
    """One method's numbers as text, in the order of COLUMNS, and how far its bar goes in percent."""
    one = made.scores.by_method[method] if made.scores else None
    place = placed(made.scores, one)
    likeness = [MISSING] * 4
    if one:
        likeness = [
            text_of(one.r_facesim, ".3f"),
            text_of(place, ".0%"),
            text_of(mean(one.clip_t.values()) if one.clip_t else None, ".1f"),
            f"{one.found} of {one.images}",
        ]
    training = [MISSING] * 4
    if trained := made.trained.get(method):
        training = [
            str(trained.config.steps),
            str(trained.config.rank),
            text_of(trained.seconds and trained.seconds / len(made.people), ".1f"),
            f"{mean(path.stat().st_size for path in trained.loras) / 1e6:.2f} MB",
        ]
    return {
        "cells": [made.labels[method], *likeness, *training],
        "bar": round(100 * min(1.0, max(0.0, place or 0.0))),
    }


def placed(scores: Scores | None, one: MethodScores | None) -> float | None:
    """Where a method lies between other people (0) and the people's own photos (1)."""
    if scores is None or one is None or one.r_facesim is None:
        return None
    return position(one.r_facesim, scores.floor, scores.ceiling)


def text_of(value: float | None, form: str) -> str:
    """A number, or the sign that there is none."""
    return MISSING if value is None else f"{value:{form}}"


def picture_uri(path: Path, widest: int) -> str:
    """A picture as a JPEG inside the page."""
    picture = decode(path)
    picture.thumbnail((widest, 10 * widest))
    return jpeg_uri(picture, quality=90, subsampling=0)

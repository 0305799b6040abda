"""What the demo made, as one HTML page that needs no other file, and in a few lines for a terminal.

No sentence says which method is better but by the run's own numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ...config import NONE, PersonalizeConfig
from ...measure.similarity import position
from ...store.decode import decode
from ...store.files import write_bytes
from ...store.report.page import render
from ...store.report.pictures import jpeg_uri
from ..generate import Image
from .people import DemoPerson
from .scores import MethodScores, Scores

BASE, LORA = "without a LoRA", "plain LoRA"
META_LORA, CONTROL = "Meta-LoRA", "Meta-LoRA (random Meta-Down)"
MISSING = "-"
MORE = "docs/reproduction.md"
COLUMNS = ("", "likeness", "of the way", "CLIP-T", "faces found", "steps", "rank", "seconds a person", "a LoRA file")


def labels_of(trained: bool) -> dict[str, str]:
    """What each method is called on the page; a Meta-Down that has learned nothing is not to be taken for one."""
    return {NONE: BASE, "lora": LORA, "meta-lora": META_LORA if trained else CONTROL}


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
    trained: dict[str, Trained]  # by method
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
    images: dict[str, Image]  # by label


def write_page(made: Demonstration) -> None:
    """`index.html`, with every picture inside it."""
    rows = rows_of(made)
    page = render(
        "demo.html",
        title=title(made),
        made=made,
        opening=opening(made),
        notes=notes(made),
        first=[row for row in rows if row.learned],
        others=[row for row in rows if not row.learned],
        lines=[numbers(made, method) for method in made.labels],
        columns=COLUMNS,
        likeness_of=lambda row: likeness_of(made, row),
        picture_uri=picture_uri,
    )
    write_bytes(made.page, page.encode())


def title(made: Demonstration) -> str:
    """What the page shows."""
    count = len(made.people)
    return (
        f"{count} people, one photo of each, two ways to learn them" if count > 1 else "One photo, two ways to learn it"
    )


def rows_of(made: Demonstration) -> list[Shown]:
    """Everyone's prompts. The photo beside the first is the one that was learned from, beside others one that was not.

    Of a person without such photos all prompts stand beside the one.
    """
    rows = []
    for index, person in enumerate(made.people):
        photos = [person.portrait, *person.unseen]
        for k, prompt in enumerate(person.prompts):
            photo = photos[k % len(photos)]
            images = {label: made.images[method][index][k] for method, label in made.labels.items()}
            rows.append(Shown(person, photo, photo == person.portrait, prompt, images))
    return rows


def opening(made: Demonstration) -> list[str]:
    """Which method is better, by the numbers of this run: in likeness, then in what the prompts ask for."""
    if made.scores is None:
        return ["There is no second photo of this person here, so likeness cannot be measured honestly."]
    meta, plain = made.scores.by_method["meta-lora"], made.scores.by_method["lora"]
    name, sentences = made.labels["meta-lora"], []
    if meta.r_facesim is None or plain.r_facesim is None:
        sentences.append("A method's images show no face, so their likeness cannot be compared.")
    else:
        a, b = f"{meta.r_facesim:.3f}", f"{plain.r_facesim:.3f}"
        whom = f"{len(made.people)} people" if len(made.people) > 1 else "person"
        ahead = sum(meta.of_person.get(p.name, 0) > plain.of_person.get(p.name, 0) for p in made.people)
        if a == b:
            sentences.append(f"{name}'s images and plain LoRA's are equally like the {whom} (both {a}).")
        else:
            better, worse, high, low = (name, LORA, a, b) if float(a) > float(b) else (LORA, name, b, a)
            count = ahead if better == name else len(made.people) - ahead
            sentences.append(
                f"{capital(better)}'s images are more like the {whom} than {worse}'s: likeness {high} against {low}"
                + (f", ahead for {count} of {len(made.people)}." if len(made.people) > 1 else ".")
            )
    if meta.clip_t is not None and plain.clip_t is not None:
        a, b = f"{meta.clip_t:.1f}", f"{plain.clip_t:.1f}"
        how = "as well" if a == b else "better" if float(a) > float(b) else "less well"
        sentences.append(f"{name}'s follow the prompts {how} (CLIP-T {a} against {b}).")
    return sentences


def notes(made: Demonstration) -> list[str]:
    """What the page is not."""
    texts = []
    if made.scores:
        texts.append(
            f"An example, not a measurement: {len(made.people)} people, {len(made.people[0].prompts)} prompts each, "
            f"one image of each prompt. {MORE} has more people, and intervals."
        )
        if made.scores.by_method[NONE].clip_t is None:
            texts.append("CLIP-T was left out: it needs open_clip (pip install open_clip_torch).")
    if made.labels["meta-lora"] == CONTROL:
        texts.append(
            "The Meta-Down of this demo is a random one, not meta-trained: its images show the method's mechanics only."
        )
    if made.preset == "tiny":
        texts.append("The tiny backbone has random weights: its images are noise, and only the path is real.")
    return texts


def numbers(made: Demonstration, method: str) -> dict[str, Any]:
    """One method's numbers as text, in the order of COLUMNS, and how far its bar goes in percent."""
    one = made.scores.by_method[method] if made.scores else None
    place = placed(made.scores, one)
    likeness = [MISSING] * 4
    if one:
        likeness = [
            text_of(one.r_facesim, ".3f"),
            text_of(place, ".0%"),
            text_of(one.clip_t, ".1f"),
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


def likeness_of(made: Demonstration, row: Shown) -> dict[str, tuple[str, bool]]:
    """By label the number under the image, and whether it is the highest of its row."""
    if made.scores is None:
        return {}
    by_label = {label: made.scores.by_method[method] for method, label in made.labels.items()}
    values = {label: by_label[label].of_image[image.path] for label, image in row.images.items()}
    highest = max((value for value in values.values() if value is not None), default=None)
    return {
        label: ("no face" if value is None else f"{value:.2f}", value is not None and value == highest)
        for label, value in values.items()
    }


def summary(made: Demonstration) -> str:
    """A table of what was measured, for a terminal."""
    table = [COLUMNS, *(numbers(made, method)["cells"] for method in made.labels)]
    widths = [max(len(row[k]) for row in table) for k in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    if made.scores:
        lines.append(
            f"Likeness (R-FaceSim) lies between other people ({made.scores.floor:.3f}, 0%) and the people's own photos "
            f"({made.scores.ceiling:.3f}, 100%)."
        )
    return "\n".join([*lines, *opening(made), *notes(made), f"It took {made.seconds:.0f} s."])


def text_of(value: float | None, form: str) -> str:
    """A number, or the sign that there is none."""
    return MISSING if value is None else f"{value:{form}}"


def capital(text: str) -> str:
    """With a capital letter, the others as they are."""
    return text[:1].upper() + text[1:]


def picture_uri(path: Path, widest: int) -> str:
    """A picture as a JPEG inside the page."""
    picture = decode(path)
    picture.thumbnail((widest, 10 * widest))
    return jpeg_uri(picture, quality=90, subsampling=0)

"""What the demo made, as one HTML page that needs no other file, and in a few lines for a terminal.

No sentence says which method is better but by the run's own numbers, and none without how sure that is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ...config import FEWEST_PEOPLE, NONE, PersonalizeConfig
from ...measure.intervals import paired
from ...measure.similarity import position
from ...store.files import write_bytes
from ...store.images import decode, read_photo
from ...store.pictures import save_image, table
from ...store.report.page import render
from ...store.report.pictures import jpeg_uri
from ..generate import Image
from .people import DemoPerson
from .scores import MethodScores, Scores

META_LORA, CONTROL = "Meta-LoRA", "Meta-LoRA (random Meta-Down)"
MISSING = "-"
MORE = "docs/reproduction.md"
# A plain LoRA's steps at which its images follow the prompt as well as Meta-LoRA's: what is left to see is likeness.
EQUALLY_OBEDIENT = {"miniature": 80}
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
    images: dict[str, Image]  # by label


def write_page(made: Demonstration) -> None:
    """`index.html`, with every picture inside it; and `people.jpg`, its first screen."""
    rows = rows_of(made)
    first = [row for row in rows if row.prompt == row.person.prompts[0]]
    shown = [[(read_photo(row.photo), "the photo") for row in first]]
    shown += [[(read_photo(row.images[label].path), label) for row in first] for label in made.labels.values()]
    save_image(table(shown), made.page.with_name("people.jpg"))
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
    return f"{count} people, each learned from one photo" if count > 1 else "A person, learned from one photo"


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
    """What it took and what it gave; then, of two methods, how they differ and whether that may be chance."""
    *others, (method, learned) = made.trained.items()
    name = made.labels[method]
    took = f"{learned.config.steps} steps"
    if learned.seconds is not None:
        took += f" and {learned.seconds / len(made.people):.0f} s a person on this machine"
    if made.scores is None:
        return [
            f"{capital(name)} took {took}.",
            "There is no second photo of this person here, so likeness cannot be measured honestly.",
        ]
    scores = made.scores.by_method
    before, after = scores[NONE].r_facesim, scores[method].r_facesim
    if before is None or after is None:
        sentences = [f"{capital(name)} took {took}. No likeness: a method's images show no face."]
    else:
        sentences = [
            f"In {took}, {name} takes likeness from {before:.2f} to {after:.2f}; "
            f"other photos of the same people reach {made.scores.ceiling:.2f}."
        ]
    for other, _ in others:
        likeness = difference(scores[method].likeness, scores[other].likeness, ".3f")
        asked = difference(scores[method].clip_t, scores[other].clip_t, ".1f")
        sentences.append(f"{capital(name)} less {made.labels[other]}: likeness {likeness}; CLIP-T {asked}.")
    return sentences


def difference(one: dict[str, float], other: dict[str, float], form: str) -> str:
    """The mean difference over people who have both scores, and whether it may be chance."""
    both = one.keys() & other.keys()
    if not both:
        return "not measured"
    if len(both) < FEWEST_PEOPLE:
        return f"{mean(one[name] - other[name] for name in both):+{form}}, which of so few people may be chance"
    found = paired({name: one[name] for name in both}, {name: other[name] for name in both})
    sure = "more than chance among these people" if found.low > 0 or found.high < 0 else "which may be chance"
    return f"{found.mean:+{form}} ({found.low:+{form}} to {found.high:+{form}}), {sure}"


def notes(made: Demonstration) -> list[str]:
    """What the page is not."""
    texts = []
    if made.preset in EQUALLY_OBEDIENT:
        texts.append(
            "Plain LoRA is stopped where its images of 32 other people follow the prompt as well as Meta-LoRA's "
            f"({MORE}): more steps bring more likeness and less obedience, to both."
        )
    if made.scores:
        texts.append(
            f"An example, not a measurement: {len(made.people)} people, {len(made.people[0].prompts)} prompts each, "
            "one image of each. Other noise gives other numbers: which of two single images is more like is chance. "
            f"{MORE} asks more people, and gives intervals."
        )
        if not made.scores.by_method[NONE].clip_t:
            texts.append("CLIP-T was left out: no open_clip can be imported (pip install open_clip_torch).")
    if CONTROL in made.labels.values():
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


def likeness_of(made: Demonstration, row: Shown) -> dict[str, str]:
    """By label the number under the image."""
    if made.scores is None:
        return {}
    values = {
        label: made.scores.by_method[method].of_image[row.images[label].path] for method, label in made.labels.items()
    }
    return {label: "no face" if value is None else f"{value:.2f}" for label, value in values.items()}


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

"""Which images of a run its page shows, and how large: a full run has thousands, a page of 5 MB room for hundreds."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...config import UserError
from ..files import digest
from ..images import decode
from ..pictures import scaled
from ..prompts import BenchmarkPrompt
from .results import ImageRow, Person, Results, Variant

MOST_PICTURES = 360  # in the strips; at 128 pixels such a page has about 3 MB
MOST_PEOPLE = 16
MOST_PROMPTS = 3
MOST_VARIANTS = 8
EXTREMES = 32  # best and worst images, of all variants together
WITHOUT_A_FACE = 24
BUDGET = 3_600_000  # bytes of all pictures of a page, so that the page stays under 5 MB
SIZES = ((160, 82), (144, 80), (128, 76), (112, 72), (96, 68), (80, 60), (64, 50))  # longer side, JPEG quality


@dataclass(frozen=True)
class Strip:
    """One person: for each shown prompt, the image of each shown variant, None where there is none."""

    person: Person
    rows: list[tuple[BenchmarkPrompt, list[tuple[Variant, ImageRow | None]]]]


@dataclass(frozen=True)
class Extremes:
    """The images of a variant that are most and least like the person."""

    variant: Variant
    best: list[ImageRow]
    worst: list[ImageRow]


@dataclass(frozen=True)
class Choice:
    """All images that the page shows, and the people beside whom they stand."""

    strips: list[Strip]
    extremes: list[Extremes]
    without_a_face: list[tuple[Variant, list[ImageRow]]]

    @property
    def images(self) -> list[ImageRow]:
        """Every shown image, as often as it is shown."""
        strips = [image for strip in self.strips for _, cells in strip.rows for _, image in cells if image]
        extremes = [image for found in self.extremes for image in [*found.best, *found.worst]]
        return [*strips, *extremes, *(image for _, images in self.without_a_face for image in images)]


def choose(results: Results) -> Choice:
    """The same choice for the same results."""
    a_side = max(1, min(4, EXTREMES // (2 * len(results.variants))))
    faceless = max(1, WITHOUT_A_FACE // len(results.variants))
    return Choice(
        strips=_strips(results),
        extremes=[found for variant in results.variants if (found := extremes(variant, a_side)).best],
        without_a_face=[
            (variant, images[:faceless])
            for variant in results.variants
            if (images := [image for image in variant.images if image.faces == 0])
        ],
    )


def shown_people(results: Results) -> list[Person]:
    """Those that R-FaceSim is about; all, where it is about nobody."""
    scored = [person for person in results.people if person.held_out]
    return (scored or results.people)[:MOST_PEOPLE]


def shown_variants(results: Results) -> list[Variant]:
    """All, if they are few; else first those with each method's most steps, in their own order."""
    longest: dict[str, Variant] = {}
    for variant in results.variants:
        if variant.method not in longest or (variant.steps or 0) > (longest[variant.method].steps or 0):
            longest[variant.method] = variant
    first = {variant.id for variant in longest.values()}
    by_need = sorted(results.variants, key=lambda variant: variant.id not in first)
    kept = {variant.id for variant in by_need[:MOST_VARIANTS]}
    return [variant for variant in results.variants if variant.id in kept]


def extremes(variant: Variant, most: int) -> Extremes:
    """Of the images with a face and photos to compare with; no image is both, and none is shown twice."""
    scored = [(image, image.held_out) for image in variant.images if image.held_out is not None]
    ordered = [image for image, _ in sorted(scored, key=lambda pair: -pair[1])]
    most = min(most, (len(ordered) + 1) // 2)
    best = _once(ordered)[:most]
    worst = [image for image in _once(reversed(ordered)) if image.path not in {shown.path for shown in best}]
    return Extremes(variant, best, worst[:most])


def _once(images: Iterable[ImageRow]) -> list[ImageRow]:
    by_path: dict[str, ImageRow] = {}
    for image in images:
        by_path.setdefault(image.path, image)
    return list(by_path.values())


def _strips(results: Results) -> list[Strip]:
    people, variants = shown_people(results), shown_variants(results)
    images = {
        (variant.id, image.identity, image.prompt): image
        for variant in variants
        for image in sorted(variant.images, key=lambda image: -image.seed)  # the lowest seed stays
    }
    room = (MOST_PICTURES - 2 * len(people)) // max(1, len(people) * len(variants))
    strips = []
    for person in people:
        asked = [prompt for prompt in results.prompts if prompt.asked_of(person.class_name, person.part)]
        rows = [
            (prompt, [(variant, images.get((variant.id, person.identity, prompt.id))) for variant in variants])
            for prompt in _spread(asked, max(1, min(MOST_PROMPTS, room)))
        ]
        strips.append(Strip(person, rows))
    return strips


def _spread(prompts: list[BenchmarkPrompt], most: int) -> list[BenchmarkPrompt]:
    """At most so many, evenly spread: prompts that stand together in a file are often alike."""
    if len(prompts) <= most:
        return prompts
    return [prompts[index * len(prompts) // most] for index in range(most)]


@dataclass(frozen=True)
class Thumbnails:
    """Data URIs by the path in results.json, and why some are not there."""

    uris: dict[str, str]
    absent: dict[str, str]
    side: int  # pixels of the longer side


def read_small(path: Path, sha256: str | None = None) -> Image.Image | str:
    """A picture at the largest thumbnail size, or why it cannot be shown: a page must not pass off another one."""
    try:
        data = path.read_bytes()
    except OSError:
        return "not in the run's folder"
    if sha256 is not None and digest(data) != sha256:
        return "changed since it was scored"
    try:
        picture = decode(path)
    except UserError:
        return "cannot be read"
    return _reduced(picture, SIZES[0][0])


def thumbnails(pictures: Mapping[str, Image.Image | str], shown: Iterable[str], budget: int = BUDGET) -> Thumbnails:
    """The largest size at which all shown pictures, repeats included, fit the budget together."""
    there = {key: picture for key, picture in pictures.items() if not isinstance(picture, str)}
    absent = {key: reason for key, reason in pictures.items() if isinstance(reason, str)}
    shown = [key for key in shown if key in there]
    for side, quality in SIZES:
        uris = {key: jpeg_uri(_reduced(picture, side), quality=quality) for key, picture in there.items()}
        if sum(len(uris[key]) for key in shown) <= budget:
            return Thumbnails(uris, absent, side)
    raise UserError(f"{len(shown)} pictures do not fit into {budget} bytes; give the report fewer variants.")


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    return scaled(picture, min(1.0, side / max(picture.size)))


def jpeg_uri(picture: Image.Image, **settings: int) -> str:
    """The picture inside the page that shows it."""
    data = io.BytesIO()
    picture.save(data, "JPEG", optimize=True, **settings)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()

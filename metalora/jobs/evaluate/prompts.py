"""Do images show what was asked, and how like are they to the reference as a whole? CLIP-T, CLIP-I and DINO."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from ...config import FEWEST_PEOPLE, Phase, Step
from ...measure.clip import load_clip
from ...measure.dino import load_dino
from ...measure.intervals import Interval, bootstrap
from ...measure.similarity import cosines, means_of
from .. import Job
from ..benchmark.pictures import PictureEmbedder, as_bytes, truncation

AT_ONCE = 32  # images; memory does not grow with the folder


@dataclass(frozen=True)
class WholeImage:
    """An image with what it was made from; the prompt is None where nobody says what was asked."""

    identity: str
    path: Path
    reference: Path
    prompt: str | None
    group: str  # images that are averaged first: of one prompt


@dataclass(frozen=True)
class WholeScore:
    """A cosine times 100: the mean over people of means over prompts; the interval where there are enough people."""

    mean: float
    interval: Interval | None
    embedder: str
    embedder_sha256: str


@dataclass(frozen=True)
class WholeReport:
    """What was asked for; None where it was not, or where an image has no prompt."""

    clip_t: WholeScore | None
    clip_i: WholeScore | None
    dino: WholeScore | None
    truncated: str | None  # a sentence that names the prompts of which CLIP reads only the beginning
    without_a_prompt: list[str]


def evaluate_whole(images: Sequence[WholeImage], clip: str | None, dino: str | None) -> Job[WholeReport]:
    """Scores of whole images by the embedders with these names."""
    clip_t = clip_i = by_dino = cut = None
    without = [str(image.path) for image in images if image.prompt is None]
    if clip is not None:
        scorer = load_clip(clip)
        yield Phase(f"{scorer.name} looks at {len(images)} images")
        seen = yield from embedded(scorer, [image.path for image in images])
        clip_i = to_references(scorer, images, seen)
        if not without:
            asked = list(dict.fromkeys(image.prompt or "" for image in images))
            cut, texts = truncation(scorer, asked), dict(zip(asked, scorer.texts(asked), strict=True))
            clip_t = scored(
                scorer, images, [likeness(v, texts[i.prompt or ""]) for i, v in zip(images, seen, strict=True)]
            )
    if dino is not None:
        by = load_dino(dino)
        yield Phase(f"{by.name} looks at {len(images)} images")
        by_dino = to_references(by, images, (yield from embedded(by, [image.path for image in images])))
    return WholeReport(clip_t, clip_i, by_dino, cut, without)


def embedded(embedder: PictureEmbedder, paths: Sequence[Path]) -> Job[Tensor]:
    """[n, d]"""
    parts = []
    for start in range(0, len(paths), AT_ONCE):
        parts.append(embedder.images([as_bytes(path) for path in paths[start : start + AT_ONCE]]))
        yield Step(min(start + AT_ONCE, len(paths)), len(paths))
    return torch.cat(parts)


def to_references(embedder: PictureEmbedder, images: Sequence[WholeImage], seen: Tensor) -> WholeScore:
    """Each image against the photo that was trained on."""
    paths = list(dict.fromkeys(image.reference for image in images))
    known: Mapping[Path, Tensor] = dict(zip(paths, embedder.images([as_bytes(path) for path in paths]), strict=True))
    return scored(embedder, images, [likeness(v, known[i.reference]) for i, v in zip(images, seen, strict=True)])


def likeness(one: Tensor, other: Tensor) -> float:
    """100 times the cosine of [d] and [d]."""
    return 100 * cosines(one[None], other[None]).item()


def scored(embedder: PictureEmbedder, images: Sequence[WholeImage], values: Iterable[float]) -> WholeScore:
    """Averaged as in the benchmark: over the images of a prompt, over prompts, over people."""
    by_identity = means_of((image.identity, image.group, value) for image, value in zip(images, values, strict=True))
    people = [by_identity[name] for name in sorted(by_identity)]
    interval = bootstrap(people) if len(people) >= FEWEST_PEOPLE else None
    return WholeScore(mean(people), interval, embedder.name, embedder.digest)

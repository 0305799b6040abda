"""Do images show what was asked, and how like are they to the reference as a whole? CLIP-T and CLIP-I."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from ...config import FEWEST_PEOPLE, Phase, Step
from ...measure.clip import ClipScorer, load_clip
from ...measure.intervals import Interval, bootstrap
from ...measure.similarity import cosines, means_of
from ...store.images import read_photo
from .. import Job

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


@dataclass(frozen=True)
class WholeReport:
    """Scores of whole images; CLIP-T is None where an image has no prompt."""

    embedder: str
    embedder_sha256: str
    clip_t: WholeScore | None
    clip_i: WholeScore
    truncated: str | None  # a sentence that names the prompts of which CLIP reads only the beginning
    without_a_prompt: list[str]


def evaluate_whole(images: Sequence[WholeImage], clip: str) -> Job[WholeReport]:
    """Scores of whole images by the CLIP of this name."""
    scorer = load_clip(clip)
    yield Phase(f"{scorer.name} looks at {len(images)} images")
    parts = []
    for start in range(0, len(images), AT_ONCE):
        parts.append(scorer.images([as_bytes(image.path) for image in images[start : start + AT_ONCE]]))
        yield Step(min(start + AT_ONCE, len(images)), len(images))
    seen = torch.cat(parts)

    def scored(others: Sequence[Tensor]) -> WholeScore:
        """As in the benchmark: over the images of a prompt, over prompts, over people."""
        values = [100 * cosines(one[None], other[None]).item() for one, other in zip(seen, others, strict=True)]
        found = means_of((image.identity, image.group, value) for image, value in zip(images, values, strict=True))
        people = [found[name] for name in sorted(found)]
        return WholeScore(mean(people), bootstrap(people) if len(people) >= FEWEST_PEOPLE else None)

    references = list(dict.fromkeys(image.reference for image in images))
    known = dict(zip(references, scorer.images([as_bytes(path) for path in references]), strict=True))
    clip_i, clip_t, cut = scored([known[image.reference] for image in images]), None, None
    without = [str(image.path) for image in images if image.prompt is None]
    if not without:
        asked = list(dict.fromkeys(image.prompt or "" for image in images))
        cut, texts = truncation(scorer, asked), dict(zip(asked, scorer.texts(asked), strict=True))
        clip_t = scored([texts[image.prompt or ""] for image in images])
    return WholeReport(scorer.name, scorer.digest, clip_t, clip_i, cut, without)


def truncation(clip: ClipScorer, texts: Sequence[str]) -> str | None:
    """A sentence that names the prompts of which CLIP reads only the beginning; None where there is none."""
    cut = clip.truncated(texts)
    if not cut:
        return None
    return f"{clip.name} reads only the beginning of {len(cut)} of {len(texts)} prompts: " + "; ".join(map(repr, cut))


def as_bytes(path: Path) -> Tensor:
    """A picture file as [3, H, W] uint8."""
    return read_photo(path).mul(255).round().to(torch.uint8)

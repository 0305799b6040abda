"""Scores of whole pictures in a benchmark: CLIP-T, CLIP-I, DINO, and the asked attributes that CLIP recognises."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ...measure.similarity import cosines
from ...store.images import read_photo
from ...store.manifest import Photo
from .plan import PlannedPrompt

ENOUGH = 40  # real photos, to see whether CLIP can read an attribute


class PictureEmbedder(Protocol):
    """Embeds pictures [3, H, W] uint8."""

    name: str
    digest: str

    def images(self, pictures: Sequence[Tensor]) -> Tensor: ...


class TextEmbedder(PictureEmbedder, Protocol):
    """And texts, into the same space."""

    def texts(self, texts: Sequence[str]) -> Tensor: ...
    def truncated(self, texts: Sequence[str]) -> list[str]: ...


class PictureScorer:
    """CLIP and DINO, each where it is there; their scores are null where it is not."""

    def __init__(
        self,
        clip: TextEmbedder | None,
        dino: PictureEmbedder | None,
        attributes: dict[str, list[str]],
        alternatives: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.clip, self.dino, self.attributes, self.alternatives = clip, dino, attributes, alternatives or {}
        self.known: dict[tuple[str, ...], Tensor] = {}  # everyone of a class is asked the same

    def digests(self) -> list[str | None]:
        """Of the embedders' files."""
        return [None if embedder is None else embedder.digest for embedder in (self.clip, self.dino)]

    def score(
        self, paths: Sequence[Path], prompts: Sequence[PlannedPrompt], class_name: str, reference: Path
    ) -> list[dict[str, Any]]:
        """clip_t, clip_i, dino (cosines times 100), adherence (0..1) and shown (by attribute 0 or 1) of each picture.

        All pictures of a person go through together, always: rounding depends on it.
        """
        names = ("clip_t", "clip_i", "dino", "adherence", "shown")
        scores: dict[str, list[Any]] = {name: [None] * len(paths) for name in names}
        if paths and (self.clip or self.dino):
            pictures = [as_bytes(path) for path in paths]
            real = as_bytes(reference)
            if self.clip:
                seen, known = self.clip.images(pictures), self.clip.images([real])
                texts = self.texts([prompt.filled[class_name] for prompt in prompts])
                scores["clip_t"] = [100 * cosines(a[None], b[None]).item() for a, b in zip(seen, texts, strict=True)]
                scores["clip_i"] = [100 * cosine for cosine in cosines(seen, known)[:, 0].tolist()]
                scores["adherence"] = [
                    self.adherence(image, prompt, class_name) for image, prompt in zip(seen, prompts, strict=True)
                ]
                scores["shown"] = [self.shown(image, prompt) for image, prompt in zip(seen, prompts, strict=True)]
            if self.dino:
                seen, known = self.dino.images(pictures), self.dino.images([real])
                scores["dino"] = [100 * cosine for cosine in cosines(seen, known)[:, 0].tolist()]
        return [dict(zip(scores, values, strict=True)) for values in zip(*scores.values(), strict=True)]

    def texts(self, texts: Sequence[str]) -> Tensor:
        """[n, d], embedded once."""
        assert self.clip is not None
        key = tuple(texts)
        if key not in self.known:
            self.known[key] = self.clip.texts(texts)
        return self.known[key]

    def adherence(self, image: Tensor, prompt: PlannedPrompt, class_name: str) -> float | None:
        """The share of the asked attributes whose value CLIP prefers to every other value that prompts ask for.

        The prompt with "red" is compared with the same prompt with "blue", and so on.
        """
        right: list[bool] = []
        for attribute, asked in prompt.asks.items():
            texts = rephrased(prompt.filled[class_name], asked, self.attributes.get(attribute, []))
            if len(texts) > 1:
                right.append(preferred(image, self.texts(texts)) == 0)
        return sum(right) / len(right) if right else None

    def shown(self, image: Tensor, prompt: PlannedPrompt) -> dict[str, int]:
        """By attribute with alternatives: whether the asked one's phrase is the nearest of all (0 or 1)."""
        found = {}
        for attribute, phrases in self.alternatives.items():
            if attribute in prompt.asks:
                wanted = list(phrases).index(prompt.asks[attribute])
                found[attribute] = int(preferred(image, self.texts(list(phrases.values()))) == wanted)
        return found


def rephrased(text: str, asked: str, values: Sequence[str]) -> list[str]:
    """The text, then the same with each other value in the place of the asked one; empty if it does not name it."""
    if asked not in text:
        return []
    return [text, *(text.replace(asked, value, 1) for value in values if value != asked)]


def preferred(image: Tensor, texts: Tensor) -> int:
    """Which of the texts [n, d] is nearest to the picture [d]."""
    return int(cosines(image[None], texts)[0].argmax())


def readable(
    clip: TextEmbedder, photos: Sequence[Photo], attributes: dict[str, list[str]]
) -> dict[str, tuple[float, int]]:
    """By attribute: the share of real photos whose value CLIP takes, by their captions, and how many there are."""
    images = clip.images([as_bytes(photo.path) for photo in photos])
    found = {}
    for attribute, values in attributes.items():
        right: list[bool] = []
        for photo, image in zip(photos, images, strict=True):
            if len(right) == ENOUGH:
                break
            shown = photo.attributes.get(attribute)
            if shown in values and shown in photo.caption:
                right.append(preferred(image, clip.texts(rephrased(photo.caption, shown, values))) == 0)
        if right:
            found[attribute] = (sum(right) / len(right), len(right))
    return found


def truncation(clip: TextEmbedder, texts: Sequence[str]) -> str | None:
    """A sentence that names the prompts of which CLIP reads only the beginning; None where there is none."""
    cut = clip.truncated(texts)
    if not cut:
        return None
    return f"{clip.name} reads only the beginning of {len(cut)} of {len(texts)} prompts: " + "; ".join(map(repr, cut))


def as_bytes(path: Path) -> Tensor:
    """A picture file as [3, H, W] uint8."""
    return read_photo(path).mul(255).round().to(torch.uint8)

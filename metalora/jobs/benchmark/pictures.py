"""Scores of whole pictures in a benchmark: CLIP-T, CLIP-I, and whether what was asked is what CLIP sees."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...measure.clip import ClipScorer
from ...measure.similarity import cosines
from ...store.images import read_photo
from .plan import PlannedPrompt


class PictureScorer:
    """A CLIP, where there is one; every score is null where there is none."""

    def __init__(self, clip: ClipScorer | None, alternatives: Mapping[str, Mapping[str, str]]) -> None:
        self.clip, self.alternatives = clip, alternatives
        self.known: dict[tuple[str, ...], Tensor] = {}  # everyone of a class is asked the same

    def score(
        self, paths: Sequence[Path], prompts: Sequence[PlannedPrompt], class_name: str, reference: Path
    ) -> list[dict[str, Any]]:
        """clip_t and clip_i (cosines times 100) and shown (by attribute 0 or 1) of each picture.

        All pictures of a person go through together, always: rounding depends on it.
        """
        if not paths or self.clip is None:
            return [{"clip_t": None, "clip_i": None, "shown": None} for _ in paths]
        seen, known = self.clip.images([as_bytes(path) for path in paths]), self.clip.images([as_bytes(reference)])
        texts = self.texts([prompt.filled[class_name] for prompt in prompts])
        return [
            {
                "clip_t": 100 * cosines(image[None], text[None]).item(),
                "clip_i": 100 * cosines(image[None], known).item(),
                "shown": self.shown(image, prompt),
            }
            for image, text, prompt in zip(seen, texts, prompts, strict=True)
        ]

    def texts(self, texts: Sequence[str]) -> Tensor:
        """[n, d], embedded once."""
        assert self.clip is not None
        key = tuple(texts)
        if key not in self.known:
            self.known[key] = self.clip.texts(texts)
        return self.known[key]

    def shown(self, image: Tensor, prompt: PlannedPrompt) -> dict[str, int]:
        """By attribute with alternatives: whether the asked one's phrase is the nearest of all (0 or 1)."""
        found = {}
        for attribute, phrases in self.alternatives.items():
            if attribute in prompt.asks:
                nearest = int(cosines(image[None], self.texts(list(phrases.values())))[0].argmax())
                found[attribute] = int(nearest == list(phrases).index(prompt.asks[attribute]))
        return found


def truncation(clip: ClipScorer, texts: Sequence[str]) -> str | None:
    """A sentence that names the prompts of which CLIP reads only the beginning; None where there is none."""
    cut = clip.truncated(texts)
    if not cut:
        return None
    return f"{clip.name} reads only the beginning of {len(cut)} of {len(texts)} prompts: " + "; ".join(map(repr, cut))


def as_bytes(path: Path) -> Tensor:
    """A picture file as [3, H, W] uint8."""
    return read_photo(path).mul(255).round().to(torch.uint8)

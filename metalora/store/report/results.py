"""What a results.json holds, as objects. Its schema says what each field means."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Misses = Literal["left out", "as zero"]


@dataclass(frozen=True)
class Figure:
    """A mean over people, and its 95% interval where there are at least `FEWEST_PEOPLE`."""

    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Person:
    """One identity of the benchmark; `reference` is the photo's path in the run's folder."""

    identity: str
    class_name: str
    part: str
    held_out: int
    reference: str


@dataclass(frozen=True)
class Prompt:
    """One prompt; `text` with its {class} and pronouns unfilled."""

    id: str
    part: str
    class_name: str | None
    group: str | None
    text: str
    tags: list[str]
    asks: dict[str, str] | None


@dataclass(frozen=True)
class ImageRow:
    """One generated image and its scores; None where a score needs what is not there."""

    identity: str
    prompt: str
    seed: int
    path: str
    sha256: str
    faces: int
    held_out: float | None
    reference: float | None
    best: float | None
    nearest: str | None
    clip_t: float | None
    clip_i: float | None
    shown: dict[str, int] | None


@dataclass(frozen=True)
class Variant:
    """One method at one step count and rank."""

    id: str
    method: str
    label: str
    steps: int | None
    rank: int | None
    settings: dict[str, Any]
    meta_down_sha256: dict[str, str] | None
    lora_sha256: dict[str, str]
    images: list[ImageRow]
    missing: list[str]
    summary: dict[str, Any]

    def figure(self, score: str, misses: Misses = "left out") -> Figure | None:
        """A score, such as `clip_t` or `shown.background`; `misses` matters to the scores of faces alone."""
        group, _, name = score.partition(".")
        found = self.summary[group].get(name) if name else self.summary[group]
        if found is not None and misses in found:
            found = found[misses]
        return None if found is None else Figure(**found)

    def mean(self, group: str, name: str, score: str) -> float | None:
        """A plain mean of the summary, such as that of one class; None where it is not there."""
        return self.summary[group].get(name, {}).get(score)


@dataclass(frozen=True)
class Comparison:
    """A paired difference, one minus other, over the people that both were scored on."""

    one: str
    other: str
    score: str
    misses: str | None
    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Embedder:
    """What made the embeddings of an image."""

    name: str
    sha256: str


@dataclass(frozen=True)
class PromptEmbedder(Embedder):
    """CLIP, with the prompts of which it read only the beginning."""

    truncated: list[str]


@dataclass(frozen=True)
class FaceEmbedder(Embedder):
    """The same for faces, with its ceiling and floor on the benchmark's real photos."""

    licence: str
    genuine_mean: float | None
    impostor_mean: float | None
    detected: int


@dataclass(frozen=True)
class Results:
    """A whole run; `folder` is what the paths start from."""

    folder: Path
    name: str
    manifest_sha256: str
    prompts_sha256: str
    people: list[Person]
    gallery: list[str]
    alternatives: dict[str, int]
    prompts: list[Prompt]
    backbone: str
    fingerprint: str
    sampling: dict[str, Any]
    seeds: list[int]
    faces: FaceEmbedder
    clip: PromptEmbedder | None
    variants: list[Variant]
    comparisons: list[Comparison]

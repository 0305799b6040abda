"""What a results.json holds, as objects, and reading it: checked whole, what is foreign or broken named by its field.

Its schema says what each field means.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from ...config import UserError
from ..prompts import BenchmarkPrompt
from ..text import decoded, problems_by_schema, refuse

LEFT = ("dino", "adherence")  # scores of format 1 that nobody reads any more
Kind = TypeVar("Kind")
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
    prompts: list[BenchmarkPrompt]
    backbone: str
    fingerprint: str
    sampling: dict[str, Any]
    seeds: list[int]
    faces: FaceEmbedder
    clip: PromptEmbedder | None
    variants: list[Variant]
    comparisons: list[Comparison]


def read_results(run: Path) -> Results:
    """The results of a run's folder, or of the file itself; one UserError that names every broken field."""
    path = run / "results.json" if run.is_dir() else run
    record = _read_json(path)
    refuse(
        str(path),
        problems_by_schema(record, "results") or list(_broken_references(record)),
        "Run the benchmark again with this version, or give the results.json of another run.",
    )
    return _parsed(record, path.parent)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(decoded(path.read_bytes(), str(path)), parse_constant=_finite, parse_float=_finite)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist. A report needs the folder of a finished run: `metalora benchmark run`."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}. Copy it again, or give another run.") from error


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):  # NaN, Infinity, 1e999
        raise ValueError(f"{text} is no finite number")
    return value


def _broken_references(record: dict[str, Any]) -> Iterator[str]:
    """What the schema cannot say: names that are used exist, once; paths stay inside the run's folder."""
    people = [person["identity"] for person in record["benchmark"]["identities"]]
    prompts = [prompt["id"] for prompt in record["benchmark"]["prompts"]]
    variants = [variant["id"] for variant in record["variants"]]
    if not variants:
        yield "variants is empty"
    for field, names in (("benchmark.identities", people), ("benchmark.prompts", prompts), ("variants", variants)):
        yield from (f"{field} has {name!r} {times} times" for name, times in Counter(names).items() if times > 1)
    for index, person in enumerate(record["benchmark"]["identities"]):
        yield from _outside(person["reference"], f"benchmark.identities[{index}].reference")
    known_people, known_prompts = set(people), set(prompts)
    for number, variant in enumerate(record["variants"]):
        for index, image in enumerate(variant["images"]):
            where = f"variants[{number}].images[{index}]"
            yield from _outside(image["path"], f"{where}.path")
            if image["identity"] not in known_people:
                yield f"{where}.identity {image['identity']!r} is not among benchmark.identities"
            if image["prompt"] not in known_prompts:
                yield f"{where}.prompt {image['prompt']!r} is not among benchmark.prompts"
    for index, comparison in enumerate(record["comparisons"]):
        for side in ("one", "other"):
            if comparison[side] not in variants:
                yield f"comparisons[{index}].{side} {comparison[side]!r} is not the id of a variant"


def _outside(path: str, where: str) -> Iterator[str]:
    """A page must not show files from elsewhere on the disk."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path or ":" in path:
        yield f"{where} {path!r} does not stay inside the folder of the run"


def _parsed(record: dict[str, Any], folder: Path) -> Results:
    benchmark, backbone, embedders = record["benchmark"], record["backbone"], record["embedders"]
    return Results(
        folder=folder,
        **{name: benchmark[name] for name in ("name", "manifest_sha256", "prompts_sha256", "gallery", "alternatives")},
        people=[_of(Person, person) for person in benchmark["identities"]],
        prompts=[_of(BenchmarkPrompt, prompt) for prompt in benchmark["prompts"]],
        backbone=backbone["name"],
        fingerprint=backbone["fingerprint"],
        sampling=record["sampling"],
        seeds=record["seeds"],
        faces=_of(FaceEmbedder, embedders["faces"]),
        clip=_of(PromptEmbedder, embedders["clip"]) if embedders["clip"] else None,
        variants=[
            _of(Variant, {**variant, "images": [_of(ImageRow, image) for image in variant["images"]]})
            for variant in record["variants"]
        ],
        comparisons=[_of(Comparison, one) for one in record["comparisons"] if one["score"] not in LEFT],
    )


def _of(kind: type[Kind], record: dict[str, Any]) -> Kind:
    """Its fields alone: format 1 has more. `class` is a word of Python."""
    names = {one.name: one.name.replace("class_name", "class") for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: record[key] for name, key in names.items()})

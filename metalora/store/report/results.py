"""A results.json as objects, read whole and checked whole."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

from ...config import UserError
from .schema import problems

SCHEMA = Path(__file__).parents[2] / "data" / "results.schema.json"
SHOWN_PROBLEMS = 8

Misses = Literal["left out", "as zero"]


@dataclass(frozen=True)
class Figure:
    """A mean over people, and its 95% interval where there are at least 2."""

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
    clip_t: float | None
    clip_i: float | None
    dino: float | None
    adherence: float | None


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
        """A score of the summary; `misses` matters to the scores of faces alone."""
        found = self.summary[score]
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
    prompts: list[Prompt]
    backbone: str
    fingerprint: str
    sampling: dict[str, Any]
    seeds: list[int]
    faces: FaceEmbedder
    clip: Embedder | None
    dino: Embedder | None
    variants: list[Variant]
    comparisons: list[Comparison]


def read_results(run: Path) -> Results:
    """The results of a run's folder, or of the file itself; one UserError that names every broken field."""
    path = run / "results.json" if run.is_dir() else run
    record = _read_json(path)
    found = problems(record, json.loads(SCHEMA.read_text(encoding="utf-8"))) or list(_broken_references(record))
    if found:
        more = f"; and {len(found) - SHOWN_PROBLEMS} more" if len(found) > SHOWN_PROBLEMS else ""
        raise UserError(
            f"{path} is not a results.json of `metalora benchmark run`: {'; '.join(found[:SHOWN_PROBLEMS])}{more}. "
            "Run the benchmark again with this version, or give another run."
        )
    return _parsed(record, path.parent)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist. A report needs the folder of a finished run: `metalora benchmark run`."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}. Copy it again, or give another run.") from error


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


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
    benchmark, embedders = record["benchmark"], record["embedders"]
    return Results(
        folder=folder,
        name=benchmark["name"],
        manifest_sha256=benchmark["manifest_sha256"],
        prompts_sha256=benchmark["prompts_sha256"],
        people=[Person(**_with_class_name(person)) for person in benchmark["identities"]],
        prompts=[Prompt(**_with_class_name(prompt)) for prompt in benchmark["prompts"]],
        backbone=record["backbone"]["name"],
        fingerprint=record["backbone"]["fingerprint"],
        sampling=record["sampling"],
        seeds=record["seeds"],
        faces=FaceEmbedder(**embedders["faces"]),
        clip=Embedder(**embedders["clip"]) if embedders["clip"] else None,
        dino=Embedder(**embedders["dino"]) if embedders["dino"] else None,
        variants=[
            Variant(**{**variant, "images": [ImageRow(**image) for image in variant["images"]]})
            for variant in record["variants"]
        ],
        comparisons=[Comparison(**comparison) for comparison in record["comparisons"]],
    )


def _with_class_name(record: dict[str, Any]) -> dict[str, Any]:
    """`class` is a word of Python."""
    return {"class_name" if key == "class" else key: value for key, value in record.items()}

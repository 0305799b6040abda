"""Reading results.json whole, and checking it whole: what is foreign or broken is named by file and field."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from ...config import UserError
from ..text import decoded
from .results import Comparison, FaceEmbedder, ImageRow, Person, Prompt, PromptEmbedder, Results, Variant

if TYPE_CHECKING:
    from jsonschema import ValidationError

SCHEMA = Path(__file__).parents[2] / "data" / "results.schema.json"
SHOWN_PROBLEMS = 8
LEFT = ("dino", "adherence")  # scores of format 1 that nobody reads any more
LONGEST = 200  # letters of a problem
Kind = TypeVar("Kind")


def read_results(run: Path) -> Results:
    """The results of a run's folder, or of the file itself; one UserError that names every broken field."""
    path = run / "results.json" if run.is_dir() else run
    record = _read_json(path)
    found = problems(record) or list(_broken_references(record))
    if found:
        more = f"; and {len(found) - SHOWN_PROBLEMS} more" if len(found) > SHOWN_PROBLEMS else ""
        raise UserError(
            f"{path} is not a results.json of `metalora benchmark run`: {'; '.join(found[:SHOWN_PROBLEMS])}{more}. "
            "Run the benchmark again with this version, or give another run."
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
    benchmark, embedders = record["benchmark"], record["embedders"]
    return Results(
        folder=folder,
        name=benchmark["name"],
        manifest_sha256=benchmark["manifest_sha256"],
        prompts_sha256=benchmark["prompts_sha256"],
        people=[_of(Person, person) for person in benchmark["identities"]],
        gallery=benchmark["gallery"],
        alternatives=benchmark["alternatives"],
        prompts=[_of(Prompt, prompt) for prompt in benchmark["prompts"]],
        backbone=record["backbone"]["name"],
        fingerprint=record["backbone"]["fingerprint"],
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


def problems(record: Any) -> list[str]:
    """What is wrong by the schema, each with the path of its field, such as `variants[0].images[3].faces`."""
    from jsonschema import Draft202012Validator  # imported late: only a report needs it

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = Draft202012Validator(schema).iter_errors(record)
    return [f"{error.json_path.removeprefix('$').removeprefix('.') or 'the file'}: {_said(error)}" for error in errors]


def _said(error: "ValidationError") -> str:
    """The library's words, which repeat the whole value, however long it is."""
    return error.message if len(error.message) <= LONGEST else f"...{error.message[-LONGEST:]}"

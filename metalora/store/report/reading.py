"""Reading results.json whole, and checking it whole: what is foreign or broken is named by file and field."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from ...config import UserError
from ..text import decoded
from .results import Comparison, Embedder, FaceEmbedder, ImageRow, Person, Prompt, PromptEmbedder, Results, Variant

SCHEMA = Path(__file__).parents[2] / "data" / "results.schema.json"
SHOWN_PROBLEMS = 8
KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
KNOWN = {"type", "const", "enum", "pattern", "minimum", "items", "properties", "required", "additionalProperties"}
SILENT = {"$ref", "$schema", "$defs", "title", "description"}


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
        return json.loads(decoded(path.read_bytes(), str(path)), parse_constant=_refuse_constant)
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
        gallery=benchmark["gallery"],
        alternatives=benchmark["alternatives"],
        prompts=[Prompt(**_with_class_name(prompt)) for prompt in benchmark["prompts"]],
        backbone=record["backbone"]["name"],
        fingerprint=record["backbone"]["fingerprint"],
        sampling=record["sampling"],
        seeds=record["seeds"],
        faces=FaceEmbedder(**embedders["faces"]),
        clip=PromptEmbedder(**embedders["clip"]) if embedders["clip"] else None,
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


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, where: str = "") -> list[str]:
    """What is wrong with a value, each with the path of its field, such as `variants[0].images[3].faces`.

    The part of JSON Schema that results.schema.json uses; a keyword that is not here is an assertion, not ignored.
    Stricter than the standard in two places: 1.0 is no integer, and 1e999 no number.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    assert schema.keys() <= KNOWN | SILENT, schema.keys() - KNOWN - SILENT
    wrong = _own_problem(value, schema)
    if wrong:
        return [f"{where or 'the file'} {wrong}, found {_shortened(value)}"]
    if isinstance(value, dict):
        return _object_problems(value, schema, root, where)
    if isinstance(value, list):
        return [
            problem
            for index, item in enumerate(value)
            for problem in problems(item, schema.get("items", {}), root, f"{where}[{index}]")
        ]
    return []


def _own_problem(value: Any, schema: dict[str, Any]) -> str | None:
    """What is wrong with the value itself, whatever it holds."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, KINDS[kind]) and not isinstance(value, bool) for kind in kinds):
        return f"must be of type {' or '.join(kinds)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if "const" in schema and value != schema["const"]:
        return f"must be {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"must be one of {', '.join(map(repr, schema['enum']))}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return f"must match {schema['pattern']}"
    if isinstance(value, int | float) and value < schema.get("minimum", value):
        return f"must be at least {schema['minimum']}"
    return None


def _object_problems(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], where: str) -> list[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    path = {name: f"{where}.{name}" if where else name for name in [*value, *known]}
    found = [f"{path[name]} is missing" for name in schema.get("required", []) if name not in value]
    for name, item in value.items():
        if name in known:
            found += problems(item, known[name], root, path[name])
        elif others is False:
            found.append(f"{path[name]} is not a field of this format")
        else:
            found += problems(item, others, root, path[name])
    return found


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

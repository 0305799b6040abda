"""The part of JSON Schema that results.schema.json uses: a foreign file is refused by field, not by accident.

A keyword of JSON Schema that is not here would be ignored in silence: `problems` asserts that there is none. Stricter
than the standard in two places: 1.0 is no integer, and 1e999 no number.
"""

import math
import re
from typing import Any

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


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, where: str = "") -> list[str]:
    """What is wrong with a value, each with the path of its field, such as `variants[0].images[3].faces`."""
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

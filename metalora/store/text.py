"""Text files that people write: prompts, captions, manifests, tables. UTF-8, with or without a byte order mark.

JSON is checked by the schemas that ship in `data/`, every problem at once. And the names in such files that become
names of files.
"""

import codecs
import functools
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import UserError

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SCHEMAS = Path(__file__).parents[1] / "data"
MOST_BYTES = 300_000_000  # of a text: /dev/zero would fill the memory
SHOWN = 20  # problems of one message
LONGEST = 200  # letters of a problem

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
LONGEST_NAME = 120  # bytes: endings, seeds and the name of an unfinished file need room too


def read_text(path: Path, what: str = "The file") -> str:
    """All of a text file; `what` is what a message calls it."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UserError(f"{what} {path} cannot be read: {error}. Check its name and permissions.") from error
    if len(data) > MOST_BYTES:
        raise UserError(f"{what} {path} has more than {MOST_BYTES / 1e6:.0f} MB: no text that people write.")
    return decoded(data, f"{what} {path}")


def decoded(data: bytes, named: str) -> str:
    """The text of a file's bytes, line ends as \\n; a UserError that begins with `named` if it is not UTF-8."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{named} is not UTF-8 text (byte {error.start + 1}): save it as UTF-8.") from error
    if data.startswith(MARKS) or "\0" in text:
        raise UserError(f"{named} is not UTF-8 text, but UTF-16 or no text at all: save it as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, what: str = "The file") -> list[str]:
    """The lines of a text file. Only line ends part them: a prompt may hold U+2028, which str.splitlines cuts at."""
    return read_text(path, what).split("\n")


def parse_json(text: str) -> Any:
    """A JSON value; ValueError also for what Python's parser gives up on in other ways."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def json_rows(lines: Iterable[str], schema: str, problems: list[str]) -> Iterator[tuple[int, Any]]:
    """(its number, its value) of each line that is not empty; what is no JSON of this schema is one of the problems."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
            found = problems_by_schema(value, schema)
        except ValueError as error:
            found = [f"not JSON ({error})"]
        problems += [f"line {number}: {problem}" for problem in found]
        if not found:
            yield number, value


def problems_by_schema(value: Any, schema: str) -> list[str]:
    """What is wrong by `data/<schema>.schema.json`, each after the path of its field: `variants[0].images[3].faces`."""
    try:
        errors = list(_validator(schema).iter_errors(value))
    except RecursionError:  # their words repeat the value
        return ["nested too deeply"]
    paths = [error.json_path.removeprefix("$").removeprefix(".") for error in errors]
    return [f"{path}: {_said(error)}" if path else _said(error) for path, error in zip(paths, errors, strict=True)]


@functools.cache
def _validator(schema: str) -> "Validator":
    from jsonschema import Draft202012Validator, validators  # imported late: most jobs read no JSON of a user

    whole = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)  # 1.0 is none
    strict = validators.extend(Draft202012Validator, type_checker=whole)
    return strict(json.loads((SCHEMAS / f"{schema}.schema.json").read_text(encoding="utf-8")))


def _said(error: "ValidationError") -> str:
    """The library's words, which repeat the whole value, however long it is; of a pattern, what it stands for."""
    means = error.schema.get("description") if error.validator == "pattern" else None
    message = f"{error.instance!r} must be {means}" if means else error.message
    return message if len(message) <= LONGEST else f"...{message[-LONGEST:]}"


def refuse(what: str, problems: Sequence[str], then: str = "") -> None:
    """One UserError for all problems that something has, if there are any; `then` says what to do."""
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        listed = "\n  ".join([*problems[:SHOWN], *more])
        raise UserError(f"{what} has {len(problems)} problem{'s' * (len(problems) > 1)}:\n  {listed}\n{then}".rstrip())


def problem_of_name(name: str) -> str | None:
    """Why some system would not take this as the name of a file or folder; None for a plain name."""
    kinds = [letter if letter in "_ .-" else unicodedata.category(letter)[0] for letter in name]
    if not kinds or kinds[0] not in "LN_" or not set(kinds) <= set("LMN_ .-"):
        return "letters, digits, -, _, . and spaces only, the first one a letter or a digit"
    if name.endswith((".", " ")):
        return "it must not end with a dot or a space"
    if as_disks_compare(name).split(".")[0].rstrip() in RESERVED:
        return "Windows keeps this name for a device"
    if len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        return f"it must not be longer than {LONGEST_NAME} bytes"
    return None


def as_disks_compare(name: str) -> str:
    """The same for names that some disk takes for one: letters of either case, an accent in or beside its letter."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def problems_of_names(names: Iterable[str], what: str) -> list[str]:
    """Names that are not plain, and different ones that some disk takes for the same."""
    unique = list(dict.fromkeys(names))
    found = [
        f"{what} {name!r} becomes a folder's or a file's name: {why}"
        for name in unique
        if (why := problem_of_name(name))
    ]
    first: dict[str, str] = {}
    for name in unique:
        if (other := first.setdefault(as_disks_compare(name), name)) != name:
            found.append(f"{what} {name!r} and {other!r} are one name on some disks")
    return found

"""Text files that people write: prompts, captions, manifests, tables. UTF-8, with or without a byte order mark."""

import codecs
import json
from pathlib import Path
from typing import Any

from ..config import UserError

MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, what: str = "The file") -> str:
    """All of a text file; `what` is what a message calls it."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UserError(f"{what} {path} cannot be read: {error}. Check its name and permissions.") from error
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

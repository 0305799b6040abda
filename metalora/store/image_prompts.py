"""Which image shows what was asked: a table beside a folder of images, or the list that a benchmark's plan writes out.

image,prompt                        a CSV; images are named relative to the folder
ada/beach-0.png,a woman at a beach

{"path": "external/METHOD/ada/beach-0.png", "prompt": "a woman at a beach", ...}
                                    a line of `external/wanted.jsonl`; external/METHOD/ stands for the folder
"""

import csv
from pathlib import Path, PurePosixPath

from ..config import UserError
from .text import parse_json, read_text

COLUMNS = ("image", "prompt")
PLACE = "external/METHOD/"  # in the list of a plan


def read_image_prompts(table: Path) -> dict[str, str]:
    """Image, relative and with forward slashes -> prompt; every problem in one message."""
    try:
        lines = read_text(table, "The prompts").split("\n")
        rows = _of_lines(lines) if table.suffix.lower() == ".jsonl" else _of_table(lines)
    except (ValueError, csv.Error) as error:
        raise UserError(f"The prompts {table} cannot be read: {error}") from error
    problems: list[str] = []
    found: dict[str, str] = {}
    for number, image, prompt in rows:
        if not (isinstance(image, str) and image.strip() and isinstance(prompt, str) and prompt.strip()):
            problems.append(f"line {number} needs an image and a prompt, got {image!r} and {prompt!r}")
            continue
        name = PurePosixPath(image.strip().replace("\\", "/").removeprefix(PLACE)).as_posix()
        if found.setdefault(name, prompt.strip()) != prompt.strip():
            problems.append(f"line {number}: {name} has two prompts")
    if not found and not problems:
        problems = [f"it needs a header line {','.join(COLUMNS)} and a row an image"]
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(f"The prompts {table} have {len(problems)} problems: {'; '.join(problems[:10])}{more}.")
    return found


def _of_table(lines: list[str]) -> list[tuple[int, object, object]]:
    reader = csv.DictReader(lines)
    if not set(COLUMNS) <= set(reader.fieldnames or ()):
        return []
    return [(number, row["image"], row["prompt"]) for number, row in enumerate(reader, 2)]


def _of_lines(lines: list[str]) -> list[tuple[int, object, object]]:
    records = [(number, parse_json(line)) for number, line in enumerate(lines, 1) if line.strip()]
    return [(n, r.get("path"), r.get("prompt")) if isinstance(r, dict) else (n, None, None) for n, r in records]

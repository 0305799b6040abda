"""Tables beside folders of pictures: what an image should show, and which photos show the same person.

image,prompt                        a CSV; images are named relative to the folder
ada/beach-0.png,a woman at a beach

{"path": "external/METHOD/ada/beach-0.png", "prompt": "a woman at a beach", ...}
                                    a line of a plan's `external/wanted.jsonl`; external/METHOD/ stands for the folder

first,second,same                   a CSV; or, without a table, a folder with one sub-folder a person
ada/1.jpg,ada/2.jpg,yes
"""

import csv
from itertools import combinations
from os.path import isfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..config import UserError
from .folders import people_in, pictures_in
from .text import parse_json, read_text, refuse

PROMPT_COLUMNS = ("image", "prompt")
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
        problems = [f"it needs a header line {','.join(PROMPT_COLUMNS)} and a row an image"]
    refuse(f"The table of prompts {table}", problems)
    return found


def _of_table(lines: list[str]) -> list[tuple[int, object, object]]:
    reader = csv.DictReader(f"{line}\n" for line in lines)  # a field may hold several lines
    if not set(PROMPT_COLUMNS) <= set(reader.fieldnames or ()):
        return []
    return [(reader.line_num, row["image"], row["prompt"]) for row in reader]


def _of_lines(lines: list[str]) -> list[tuple[int, object, object]]:
    records = [(number, parse_json(line)) for number, line in enumerate(lines, 1) if line.strip()]
    return [(n, r.get("path"), r.get("prompt")) if isinstance(r, dict) else (n, None, None) for n, r in records]


SAME, DIFFERENT = {"1", "true", "yes", "same"}, {"0", "false", "no", "different"}
PAIR_COLUMNS = ("first", "second", "same")


class Pair(NamedTuple):
    """Two photos, and whether they show one person."""

    first: Path
    second: Path
    same: bool


def pairs_of_people(folder: Path) -> list[Pair]:
    """Every pair of photos of a folder whose sub-folders are people."""
    people = {person: pictures_in(person) for person in people_in(folder)}
    photos = [(path, person) for person, paths in people.items() for path in paths]
    if len(people) < 2 or len(photos) <= len(people):
        raise UserError(
            f"{folder} has {len(people)} sub-folders with {len(photos)} pictures. Without a CSV of pairs, make one "
            "sub-folder a person, at least 2 people, and at least 2 photos of one of them."
        )
    return [Pair(a, b, one == other) for (a, one), (b, other) in combinations(photos, 2)]


def read_pairs(table: Path, folder: Path) -> list[Pair]:
    """A CSV with the columns first, second (paths relative to `folder`) and same; every problem in one message."""
    try:
        rows = list(csv.DictReader(read_text(table, "The pairs").split("\n")))
    except csv.Error as error:
        raise UserError(f"{table} cannot be read as a CSV file: {error}") from error
    absent = [column for column in PAIR_COLUMNS if not rows or column not in rows[0]]
    if absent:
        raise UserError(
            f"{table} needs a header line first,second,same and a row a pair; missing: {', '.join(absent)}."
        )
    pairs, problems = [], []
    for number, row in enumerate(rows, 2):
        label = (row["same"] or "").strip().lower()
        if label not in SAME | DIFFERENT:
            problems.append(f"line {number}: same is {row['same']!r}, not one of {', '.join(sorted(SAME | DIFFERENT))}")
        files = [folder / (row[column] or "") for column in PAIR_COLUMNS[:2]]
        problems += [f"line {number}: {path} does not exist" for path in files if not isfile(path)]
        pairs.append(Pair(files[0], files[1], label in SAME))
    refuse(str(table), problems)
    return pairs

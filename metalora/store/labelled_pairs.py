"""Which photos show the same person: a CSV of labelled pairs, or a folder with one sub-folder a person."""

import csv
from itertools import combinations
from os.path import isfile
from pathlib import Path
from typing import NamedTuple

from ..config import UserError
from .folders import people_in, pictures_in
from .text import read_text

SAME, DIFFERENT = {"1", "true", "yes", "same"}, {"0", "false", "no", "different"}
COLUMNS = ("first", "second", "same")


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
    absent = [column for column in COLUMNS if not rows or column not in rows[0]]
    if absent:
        raise UserError(
            f"{table} needs a header line first,second,same and a row a pair; missing: {', '.join(absent)}."
        )
    pairs, problems = [], []
    for number, row in enumerate(rows, 2):
        label = (row["same"] or "").strip().lower()
        if label not in SAME | DIFFERENT:
            problems.append(f"line {number}: same is {row['same']!r}, not one of {', '.join(sorted(SAME | DIFFERENT))}")
        files = [folder / (row[column] or "") for column in COLUMNS[:2]]
        problems += [f"line {number}: {path} does not exist" for path in files if not isfile(path)]
        pairs.append(Pair(files[0], files[1], label in SAME))
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise UserError(f"{table} has {len(problems)} problems: {shown}.")
    return pairs

"""Who is there to learn from: a folder with one sub-folder a person, or a JSONL manifest with a line a photo.

A manifest line: {"identity": "ada", "path": "ada/1.jpg", "class": "woman", "caption": "...", "mirrored_caption": ".."};
the last three may be left out, and other keys are not read. Paths are relative to the manifest. In a folder, a caption
is a text file beside its photo: ada/1.txt.
"""

from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import TypeAlias

from ..config import UserError
from .folders import people_in, pictures_in, skipped
from .text import json_rows, read_lines, read_text, refuse

NOTHING_STARTED = "Nothing was started."


@dataclass(frozen=True)
class Photo:
    """A photo file; its caption if it has one of its own, and the caption of its mirror image."""

    path: Path
    caption: str | None = None
    mirrored_caption: str | None = None


@dataclass(frozen=True)
class Identity:
    """A person with photos; `kind` is the class if the manifest names one."""

    name: str
    kind: str | None
    photos: tuple[Photo, ...]


# (where it stands, identity, class, photo)
Row: TypeAlias = tuple[str, str, str | None, Photo]


def read_identities(source: Path) -> list[Identity]:
    """Everyone in a folder or a manifest, by name; every problem in one UserError."""
    rows, problems = _folder_rows(source) if source.is_dir() else _manifest_rows(source)
    people: dict[str, list[tuple[Photo, str | None]]] = {}
    owners: dict[Path, str] = {}
    for place, name, kind, photo in rows:
        if not isfile(photo.path):  # also for names that no disk takes
            problems.append(f"{place}: {photo.path} does not exist")
        if photo.path in owners:
            problems.append(f"{place}: {photo.path} is listed already, for {owners[photo.path]}")
        owners[photo.path] = name
        people.setdefault(name, []).append((photo, kind))
    for name, photos in people.items():
        kinds = {kind for _, kind in photos}
        if len(kinds) > 1:
            problems.append(f"{name} has {len(kinds)} classes: {', '.join(sorted(map(str, kinds)))}")
    refuse(str(source), problems, NOTHING_STARTED)
    if len(people) < 2:
        raise UserError(
            f"{source} has {len(people)} people with photos; meta-training needs many. Give a folder with one "
            "sub-folder a person, or a .jsonl file with a line a photo."
        )
    return [
        Identity(name, photos[0][1], tuple(photo for photo, _ in photos)) for name, photos in sorted(people.items())
    ]


def _folder_rows(folder: Path) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    problems: list[str] = []
    for person in people_in(folder):
        pictures = pictures_in(person)
        if not pictures and (why := skipped([person])):
            problems.append(f"{person.name} has no photo that is read: {why.rstrip('.')}")
        for path in pictures:
            words = path.with_suffix(".txt")
            try:
                caption = read_text(words, "The caption").strip() if words.is_file() else None
            except UserError as error:
                problems.append(str(error).rstrip("."))
                continue
            rows.append((person.name, person.name, None, Photo(path, caption or None)))
    return rows, problems


def skipped_of(source: Path) -> str | None:
    """A sentence that names what a folder of people holds beside photos and captions."""
    return skipped(people_in(source), people=source) if source.is_dir() else None


def _manifest_rows(manifest: Path) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    problems: list[str] = []
    for number, row in json_rows(read_lines(manifest, "The manifest"), "people", problems):
        photo = Photo(manifest.parent / row["path"], row.get("caption"), row.get("mirrored_caption"))
        rows.append((f"line {number}", row["identity"], row.get("class"), photo))
    return rows, problems

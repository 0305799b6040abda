"""A benchmark's photos: a manifest with one line of JSON a photo, read whole and checked whole.

What a line holds stands in `data/manifest.schema.json`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path

from ..config import UserError
from .files import digest
from .images import read_photo
from .near_duplicates import near_hashes, perceptual_hash
from .prompts import SEVERAL, SINGLE, WORDS
from .text import decoded, json_rows, problems_of_names, refuse


@dataclass(frozen=True)
class Photo:
    """One line."""

    line: int
    identity: str
    class_name: str
    part: str
    role: str
    name: str  # as the manifest has it
    path: Path
    sha256: str


@dataclass(frozen=True)
class Identity:
    """A person with their photos."""

    name: str
    class_name: str
    part: str
    reference: Photo
    held_out: list[Photo]


@dataclass(frozen=True)
class Manifest:
    """The people of a benchmark, in the order of their first line."""

    path: Path
    sha256: str
    people: list[Identity]


def read_manifest(path: Path, *, look: bool = True) -> Manifest:
    """The people and their photos; every problem in one message.

    `look` also decodes each photo and compares them all: two that show the same picture are a problem. Without it,
    the files' bytes are checked all the same.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"The manifest {path} cannot be read: {error}") from error
    photos, problems = read_lines(decoded(data, f"The manifest {path}").split("\n"), path.parent)
    problems += problems_of_files(photos)
    people = {photo.identity: [p for p in photos if p.identity == photo.identity] for photo in photos}
    problems += problems_of_names(people, "identity")
    for name, own in people.items():
        problems += problems_of_identity(name, own)
    if look:
        problems += problems_of_pictures(photos)
    if not photos and not problems:
        problems = ["it has no line"]
    refuse(f"The manifest {path}", problems)
    return Manifest(path, digest(data), [identity_of(own) for own in people.values()])


def read_lines(lines: Sequence[str], folder: Path) -> tuple[list[Photo], list[str]]:
    """(photos, problems); a line with a problem gives no photo."""
    photos: list[Photo] = []
    problems: list[str] = []
    for number, row in json_rows(lines, "manifest", problems):
        said = {key: row[key] for key in ("identity", "part", "role", "sha256")}
        photos.append(Photo(number, class_name=row["class"], name=row["path"], path=folder / row["path"], **said))
    return photos, problems


def problems_of_files(photos: Sequence[Photo]) -> list[str]:
    """Missing files, other bytes than the manifest says, and one file in several lines."""
    problems = []
    line_of: dict[str, Photo] = {}
    for photo in photos:
        try:
            found = digest(photo.path.read_bytes())
        except (OSError, ValueError) as error:  # ValueError: a name that no disk takes
            why = error.strerror if isinstance(error, OSError) else error
            problems.append(f"line {photo.line}: {photo.name!r} cannot be read ({why})")
            continue
        if found != photo.sha256:
            problems.append(
                f"line {photo.line}: {photo.name} has the sha256 {found[:12]}..., not {photo.sha256[:12]}...: "
                "it is another file than the manifest's"
            )
        first = line_of.setdefault(found, photo)
        if first is not photo:
            problems.append(f"line {photo.line}: {same_picture(first, photo)} (the same bytes)")
    return problems


def problems_of_identity(name: str, photos: Sequence[Photo]) -> list[str]:
    """One reference each, held-out photos where they belong, one class and one part."""
    problems = []
    references = [photo for photo in photos if photo.role == "reference"]
    if len(references) != 1:
        lines = f" (lines {', '.join(str(photo.line) for photo in references)})" if references else ""
        problems.append(f"{name} has {len(references)} references{lines}; exactly one photo is trained on")
    for what, values in (("class", {p.class_name for p in photos}), ("part", {p.part for p in photos})):
        if len(values) > 1:
            problems.append(f"{name} has more than one {what}: {', '.join(sorted(values))}")
    if unknown := {photo.class_name for photo in photos} - WORDS.keys():
        problems.append(f"{name} is of the class {' and '.join(sorted(unknown))}, not one of {', '.join(WORDS)}")
    held_out = len(photos) - len(references)
    if photos[0].part == SEVERAL and not held_out:
        problems.append(f"{name} has no held-out photo: R-FaceSim needs at least one beside the reference")
    if photos[0].part == SINGLE and held_out:
        problems.append(f"{name} is in {SINGLE} and has {held_out} held-out photos: move it to {SEVERAL}")
    return problems


def problems_of_pictures(photos: Sequence[Photo]) -> list[str]:
    """Photos that cannot be decoded, and different files that show the same picture."""
    problems, seen, hashes, mirrored = [], [], [], []
    for photo in photos:
        if not isfile(photo.path):
            continue  # already a problem
        try:
            pixels = read_photo(photo.path)
        except UserError as error:
            problems.append(f"line {photo.line}: {error}")
            continue
        seen.append(photo)
        hashes.append(perceptual_hash(pixels))
        mirrored.append(perceptual_hash(pixels.flip(-1)))
    for one, other, apart in near_hashes(hashes, mirrored):
        if seen[one].path.read_bytes() != seen[other].path.read_bytes():  # equal bytes are a problem already
            what = same_picture(seen[one], seen[other])
            problems.append(f"line {seen[other].line}: {what} ({apart:.0%} of their perceptual hashes differ)")
    return problems


def same_picture(one: Photo, other: Photo) -> str:
    """Why a picture must not be there twice."""
    what = f"{other.name} shows the same picture as {one.name} (line {one.line})"
    if one.identity != other.identity:
        return f"{what}, but they are {one.identity} and {other.identity}"
    if one.role != other.role:
        return f"{what}: a reference among the held-out photos makes copying pay"
    return f"{what}: it would count twice"


def identity_of(photos: Sequence[Photo]) -> Identity:
    """A person from their checked photos."""
    (reference,) = (photo for photo in photos if photo.role == "reference")
    held_out = [photo for photo in photos if photo.role == "held-out"]
    return Identity(reference.identity, reference.class_name, reference.part, reference, held_out)

"""The pictures of a folder, and what else lies there: what a folder's listing leaves out is said."""

from collections.abc import Iterable
from pathlib import Path

from ..config import UserError
from .images import CAMERA_RAW, HEIF_ENDINGS, endings

SHOWN = 10  # names of one sentence


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name: all that `decode` reads, and nothing hidden."""
    return [path for path in listing(folder) if path.suffix.lower() in endings() and path.is_file()]


def people_in(folder: Path) -> list[Path]:
    """The sub-folders of a folder, by name."""
    return [path for path in listing(folder) if path.is_dir()]


def skipped(folders: Iterable[Path], *, people: Path | None = None) -> str | None:
    """A sentence that names what these folders hold beside pictures; None where there is nothing.

    A caption beside its picture is none of it. `people` is a folder of which only sub-folders count.
    """
    left = [path for path in listing(people) if not path.is_dir()] if people else []
    for folder in folders:
        pictures = pictures_in(folder)
        captions = {path.with_suffix(".txt") for path in pictures}
        left += [path for path in listing(folder) if path not in captions.union(pictures)]
    if not left:
        return None
    names = ", ".join(map(str, left[:SHOWN])) + (f" and {len(left) - SHOWN} more" if len(left) > SHOWN else "")
    kinds = {path.suffix.lower() for path in left}
    help_ = " Develop camera raw files first." if kinds & CAMERA_RAW else ""
    help_ += " HEIC photos need: pip install pillow-heif." if kinds & HEIF_ENDINGS else ""
    return f"{len(left)} {'entries are' if len(left) > 1 else 'entry is'} skipped, not being pictures: {names}.{help_}"


def listing(folder: Path) -> list[Path]:
    """What is not hidden in a folder, by name."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; a folder of pictures is needed.")
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): check its permissions.") from error

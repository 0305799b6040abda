"""Latents, prompt embeddings and faces on disk, keyed by content: the same photo and autoencoder are encoded once.

A key is the hash of everything the result depends on. Names and dates are not part of it, so a renamed photo is a hit
and a changed one a miss; there is nothing to invalidate, and the folder may be deleted at any time. A face can be
decoded from its latents, so entries are readable by their owner alone. An entry that is not, bit for bit, what was put
there is a miss. When the last process that uses the folder has finished, the entries that were not used for the longest
time go, until the rest is within the limit.
"""

import json
import os
import re
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..config import UserError
from . import files

LIMIT = 50.0  # GB, where METALORA_CACHE_LIMIT does not say otherwise
SUBFOLDERS = "[0-9a-f][0-9a-f]"
FLAG = "--cache FOLDER (or METALORA_CACHE)"


def default_folder() -> Path:
    """METALORA_CACHE if set, else where the system keeps caches."""
    if folder := os.environ.get("METALORA_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metalora"
    except RuntimeError as error:
        raise UserError(f"This user has no home folder to keep a cache in: name one with {FLAG}.") from error


def default_limit() -> float:
    """METALORA_CACHE_LIMIT in bytes; the variable is in GB, and 0 keeps nothing longer than a job needs it."""
    given = os.environ.get("METALORA_CACHE_LIMIT") or str(LIMIT)
    try:
        limit = float(given)
    except ValueError:
        limit = -1
    if not limit >= 0:
        raise UserError(f"METALORA_CACHE_LIMIT is {given!r}; a number of GB is needed, 0 to keep nothing.")
    return limit * 1e9


class Cache:
    """A folder of small safetensors files; `limit` in bytes."""

    def __init__(self, folder: Path, limit: float | None = None):
        self.folder, self.limit = folder, default_limit() if limit is None else limit
        self._in_use = False

    @staticmethod
    def key(**content: str | int | float | bool | list[float]) -> str:
        """The hash of what a result depends on."""
        return files.digest(json.dumps(content, sort_keys=True).encode())

    @staticmethod
    def key_of_files(paths: Iterable[Path], **content: str | int | float | bool) -> str:
        """The same of what depends on the bytes of files, in their order."""
        return Cache.key(photos=",".join(files.digest(path.read_bytes()) for path in paths), **content)

    def __contains__(self, key: str) -> bool:
        return self._read(key) is not None

    def get(self, key: str) -> dict[str, Tensor]:
        """What `put` stored under the key."""
        tensors = self._read(key)
        if tensors is None:
            raise UserError(
                f"{self._path(key)} was removed or damaged while it was needed. Repeat the command; where the cache is "
                "shared or small, give it more room with METALORA_CACHE_LIMIT or a folder of its own with --cache."
            )
        return tensors

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Store; whole or not at all, so that a reader never finds half an entry."""
        path = self._path(key)
        with files.mended_os_errors(path, FLAG):
            self._mark_use()
            path.parent.mkdir(mode=0o700, exist_ok=True)
        facts = {"format": "pt", "sha256": files.digest_of_tensors(tensors)}
        files.write_bytes(path, files.safetensors_bytes(tensors, facts), private=True, flag=FLAG)

    def shapes(self, key: str) -> dict[str, tuple[int, ...]]:
        """Of an entry's tensors, none of which is read."""
        with files.opened(self.used(key)) as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # not a dict

    def get_row(self, key: str, name: str, row: int) -> Tensor:
        """A row of one of an entry's tensors, in float32: a copy, so that nothing else stays in memory."""
        with files.opened(self.used(key)) as file:
            return file.get_slice(name)[row].to(torch.float32, copy=True)

    def used(self, key: str) -> Path:
        """Where an entry is, which from now on is the one that was used last."""
        path = self._path(key)
        with suppress(OSError):  # a folder that may only be read
            os.utime(path)
            self._mark_use()
        return path

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        """The entry, if it is whole."""
        try:
            with files.opened(self.used(key)) as file:
                tensors, facts = files.all_tensors(file), file.metadata() or {}
        except UserError:
            return None
        return tensors if facts.get("sha256") == files.digest_of_tensors(tensors) else None

    def _mark_use(self) -> None:
        """From now until this object or its process is gone, no other process clears up."""
        if self._in_use:
            return
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        files.sweep(self.folder)
        for folder in self.folder.glob(SUBFOLDERS):
            folder.chmod(0o700)  # an earlier version left them open to everyone
        mark = files.partial_of(self.folder / f"in-use-{id(self)}")
        mark.touch(mode=0o600)
        weakref.finalize(self, clear_up, self.folder, self.limit, mark)
        self._in_use = True


@dataclass(frozen=True)
class Entry:
    """A file of the cache."""

    used: float  # seconds since 1970
    size: int  # bytes
    path: Path


def entries(folder: Path) -> list[Entry]:
    """Those that were not used for the longest time first. Other files of the folder are not ours."""
    found = []
    for path in (*folder.glob(f"{SUBFOLDERS}/*.safetensors"), *folder.glob(f"people/{SUBFOLDERS}/*.safetensors")):
        with suppress(OSError):  # another process was faster
            if re.fullmatch("[0-9a-f]{64}", path.stem):
                stat = path.stat()
                found.append(Entry(stat.st_mtime, stat.st_size, path))
    return sorted(found, key=lambda entry: entry.used)


def clear_up(folder: Path, limit: float, mark: Path | None = None) -> tuple[int, int]:
    """Remove entries until the rest is within the limit, unless a process that runs uses them; (how many, bytes)."""
    with suppress(OSError):
        if mark is not None:
            mark.unlink(missing_ok=True)
    for each in (folder, *folder.glob(SUBFOLDERS)):
        files.sweep(each)
    count, freed = 0, 0
    if any(folder.glob("in-use-*.partial")):
        return count, freed
    there = entries(folder)
    over = sum(entry.size for entry in there) - limit
    for entry in there:
        if freed >= over:
            break
        with suppress(OSError):
            entry.path.unlink()
            count, freed = count + 1, freed + entry.size
            entry.path.parent.rmdir()  # refused until it is empty
    return count, freed


def about(folder: Path, limit: float) -> str:
    """Several lines on what is there."""
    there = entries(folder)
    lines = [
        f"{folder}: {len(there)} entries, {sum(entry.size for entry in there) / 1e6:,.1f} MB of at most "
        f"{limit / 1e6:,.0f} MB"
    ]
    if there:
        days = (time.time() - there[0].used) / 86400
        lines.append(f"  the one that was not used for the longest time: {days:.0f} days")
    lines.append("  latents of photos (a face can be decoded from them), prompts and embeddings of faces")
    return "\n".join(lines)

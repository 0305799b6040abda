"""A file's identity for cache keys: its content if it is small, else a sample of it that takes no minutes to read."""

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

WHOLE = 256 * 2**20  # files up to this are read whole
MOST = 100_000
SAMPLES, SAMPLE = 64, 2**16


def fingerprint_of_files(paths: Iterable[Path]) -> str:
    """sha256 over the files' names and fingerprints, in the given order; the folder does not matter."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(f"{path.name}\0{fingerprint_of_file(path)}\0".encode())
    return sha.hexdigest()


def fingerprint_of_stats(paths: Iterable[Path]) -> str:
    """sha256 over the names, sizes and dates of at most `MOST` files, where reading them all takes too long."""
    files = [path for path in islice(paths, MOST) if path.is_file()]
    seen = sorted(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    return hashlib.sha256("\n".join(seen).encode("utf-8", "replace")).hexdigest()


def fingerprint_of_file(path: Path) -> str:
    """sha256 of the content; of a larger file: of its size, its header, and 64 samples of 64 KiB at even distances.

    Other names, shapes or types of tensors are in the safetensors header, so they show for certain. A
    change of single weights between two samples goes unseen; a trained or converted model changes everywhere.
    """
    size = path.stat().st_size
    sha = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            while block := file.read(2**20):
                sha.update(block)
        else:
            length = int.from_bytes(file.read(8), "little")
            sha.update(file.read(min(length, 2**24)))  # a safetensors header; of another file just its start
            for index in range(SAMPLES):
                file.seek((size - SAMPLE) * index // (SAMPLES - 1))
                sha.update(file.read(SAMPLE))
    return sha.hexdigest()

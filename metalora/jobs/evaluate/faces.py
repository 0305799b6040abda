"""The faces of picture files as embeddings, many files at a time."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ...config import UserError
from ...measure.faces import FaceAnalyser
from ...store.images import read_photo

Found = TypeVar("Found")

MOST_THREADS = 16


def only_embedding(analyser: FaceAnalyser, path: Path) -> Tensor:
    """The largest face [d] of a real photo."""
    faces = analyser.embeddings(read_photo(path))
    if not len(faces):
        raise UserError(f"No face was found in {path}. Every photo that others are compared with must show one.")
    return faces[0]


def all_embeddings(analyser: FaceAnalyser, paths: Sequence[Path]) -> Iterator[Tensor]:
    """[k, d] of each picture, in their order: every face, the largest first."""
    return by_threads(lambda path: analyser.embeddings(read_photo(path)), paths)


def by_threads(work: Callable[[Path], Found], paths: Sequence[Path]) -> Iterator[Found]:
    """What `work` finds in each file; nearly all of its time is spent in libraries that let go of Python's lock."""
    with ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, MOST_THREADS))) as pool:
        yield from pool.map(work, paths)

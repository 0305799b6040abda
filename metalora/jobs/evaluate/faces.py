"""The faces of picture files as embeddings, many files at a time."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ...config import UserError
from ...measure.faces import FaceAnalyser
from ...store.images import read_photo

Found = TypeVar("Found")

FILES_AT_ONCE = 8  # whose faces are embedded together
MOST_THREADS = 16


def only_embedding(analyser: FaceAnalyser, path: Path) -> Tensor:
    """The largest face [d] of a real photo."""
    faces = embeddings(analyser, path)
    if not len(faces):
        raise UserError(f"No face was found in {path}. Every photo that others are compared with must show one.")
    return faces[0]


def embeddings(analyser: FaceAnalyser, path: Path) -> Tensor:
    """[k, d]: every face of a picture, the largest first."""
    return next(all_embeddings(analyser, [path]))


def all_embeddings(analyser: FaceAnalyser, paths: Sequence[Path]) -> Iterator[Tensor]:
    """[k, d] of each picture, in their order: every face, the largest first; what `embeddings` gives one by one.

    Threads read, search and embed a few pictures each, as nearly all of the time is spent in libraries that let go of
    Python's lock. A picture is gone once it is embedded, so memory does not grow with the folder.
    """
    return by_groups(partial(_group, analyser), paths)


def by_groups(work: Callable[[Sequence[Path]], list[Found]], paths: Sequence[Path]) -> Iterator[Found]:
    """What `work` finds in each file, of a few files at a time, by threads."""
    groups = [paths[start : start + FILES_AT_ONCE] for start in range(0, len(paths), FILES_AT_ONCE)]
    with ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, MOST_THREADS))) as pool:
        for found in pool.map(work, groups):
            yield from found


def _group(analyser: FaceAnalyser, paths: Sequence[Path]) -> list[Tensor]:
    """A photo is dropped as soon as its faces are cut out."""
    return analyser.vectors_of_each([analyser.cuts(read_photo(path)) for path in paths])

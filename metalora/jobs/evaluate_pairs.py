"""Does an embedder tell these people apart? What its scores mean, shown on photos of known people."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..config import Phase, Step
from ..measure.faces import load_faces
from ..measure.verification import Verification, verify
from ..store.labelled_pairs import Pair, pairs_of_people, read_pairs
from . import Job
from .face_embeddings import all_embeddings


@dataclass(frozen=True)
class PairReport:
    """What an embedder's scores mean on these photos."""

    embedder: str
    embedder_sha256: str
    licence: str
    photos: int
    undetected: list[str]
    verification: Verification


def evaluate_pairs(folder: Path, table: Path | None, embedder: str) -> Job[PairReport]:
    """Genuine and impostor scores of labelled photos; without a table, sub-folders are people."""
    pairs = read_pairs(table, folder) if table else pairs_of_people(folder)
    analyser = load_faces(embedder)
    paths = list(dict.fromkeys(path for pair in pairs for path in pair[:2]))
    yield Phase(f"{len(paths)} photos, {len(pairs)} pairs")
    found: dict[Path, Tensor] = {}
    for index, (path, faces) in enumerate(zip(paths, all_embeddings(analyser, paths), strict=True), 1):
        if len(faces):
            found[path] = faces[0]
        yield Step(index, len(paths))
    usable = [pair for pair in pairs if pair.first in found and pair.second in found]
    undetected = [str(path.relative_to(folder)) for path in paths if path not in found]
    return PairReport(analyser.name, analyser.digest, analyser.licence, len(paths), undetected, verified(usable, found))


def verified(pairs: Sequence[Pair], found: dict[Path, Tensor]) -> Verification:
    """The verification test over the pairs with a face in both photos."""
    scores = np.array([float(found[first] @ found[second]) for first, second, _ in pairs])
    return verify(scores, np.array([same for *_, same in pairs], dtype=bool))

"""Does an embedder tell these people apart? What its scores mean, shown on photos of known people."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from ...config import Phase, Step
from ...measure import load_faces
from ...measure.verification import Verification, verify
from ...store.folders import people_in, skipped
from ...store.tables import pairs_of_people, read_pairs
from .. import Job
from .photos import Look, checked, look_at


@dataclass(frozen=True)
class PairReport:
    """What an embedder's scores mean on these photos."""

    embedder: str
    embedder_sha256: str
    licence: str
    photos: int
    undetected: list[str]
    verification: Verification
    odd_photos: list[str]  # what is wrong with photos, where that was let pass


def evaluate_pairs(
    folder: Path, table: Path | None, embedder: str, *, turn: str = "refuse", as_they_are: bool = False
) -> Job[PairReport]:
    """Genuine and impostor scores of labelled photos; without a table, sub-folders are people."""
    pairs = read_pairs(table, folder) if table else pairs_of_people(folder)
    analyser = load_faces(embedder)
    paths = list(dict.fromkeys(path for pair in pairs for path in pair[:2]))
    yield Phase(f"{len(paths)} photos, {len(pairs)} pairs")
    if table is None and (beside := skipped(people_in(folder), people=folder)):
        yield Phase(beside)
    looks: list[Look] = []
    for look in look_at(analyser, paths, turn):
        looks.append(look)
        yield Step(len(looks), len(paths))
    by_person = [list(group) for _, group in groupby(looks, key=lambda look: look.path.parent)]
    odd = yield from checked([looks] if table else by_person, as_they_are, same_person=table is None)
    found = {look.path: look.faces[0] for look in looks if len(look.faces)}
    usable = [pair for pair in pairs if pair.first in found and pair.second in found]
    undetected = [str(path.relative_to(folder)) for path in paths if path not in found]
    scores = np.array([float(found[pair.first] @ found[pair.second]) for pair in usable])
    test = verify(scores, np.array([pair.same for pair in usable], dtype=bool))
    return PairReport(analyser.name, analyser.digest, analyser.licence, len(paths), undetected, test, odd)

"""The faces of picture files; photos that others are compared with are looked at first.

A wrong one makes every score wrong, in silence.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ...config import Phase, UserError
from ...measure.faces import FaceAnalyser
from ...measure.similarity import cosines
from ...store.images import photo_digest, read_photo
from ...store.near_duplicates import near_hashes, perceptual_hash
from ...store.pictures import made_here
from .. import Job
from ..photos import TURNS, quarter_turns

Found = TypeVar("Found")

STRANGER = 0.2  # cosine to the photos that are most alike; of different people's photos it is about 0.1
UNLIKE = 0.25  # by how much a photo is less alike than the person's others usually are
SPREAD = 5.0  # or by so many times their median deviation, if that is more
AS_THEY_ARE = "--photos-as-they-are"
MOST_THREADS = 16


@dataclass(frozen=True)
class Look:
    """One photo; all faces [k, d], the largest first."""

    path: Path  # or what messages call one that is no file
    faces: Tensor
    turned: int  # quarter turns to the left that set it upright
    mended: bool  # and that it was given before anything was looked for
    generated: bool  # a file of `metalora generate`
    digest: str
    bits: np.ndarray
    mirrored: np.ndarray


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


def look_at(analyser: FaceAnalyser, paths: Sequence[Path], turn: str = "refuse") -> Iterator[Look]:
    """Each photo; with turn `auto`, as it is upright."""
    return by_threads(
        lambda path: look_at_one(analyser, read_photo(path), path, turn, generated=bool(made_here(path))), paths
    )


def look_at_one(
    analyser: FaceAnalyser, photo: Tensor, path: Path, turn: str = "refuse", *, generated: bool = False
) -> Look:
    """A photo [3, H, W] in 0..1; `path` is what messages call it."""
    turned, mended = 0 if turn == "keep" else quarter_turns(photo), turn == "auto"
    if turned and mended:
        photo = photo.rot90(turned, (1, 2)).contiguous()
    faces = analyser.embeddings(photo)
    bits, mirrored = perceptual_hash(photo), perceptual_hash(photo.flip(-1))
    return Look(path, faces, turned, mended, generated, photo_digest(photo), bits, mirrored)


def checked(
    people: Sequence[Sequence[Look]], as_they_are: bool, *, same_person: bool = True, more: Sequence[str] = ()
) -> Job[list[str]]:
    """What is odd about everyone's photos, and `more`; one UserError, unless they are wanted as they are."""
    turned = [look for looks in people for look in looks if look.turned and look.mended]
    if turned:
        yield Phase("turned: " + ", ".join(f"{look.path} by {TURNS[look.turned]}" for look in turned))
    odd = [*problems_of(people, same_person=same_person), *more]
    if odd and not as_they_are:
        listed = "\n  ".join(odd)
        raise UserError(
            f"{len(odd)} of what images would be compared with is odd:\n  {listed}\n"
            f"Mend or remove these photos (--turn auto sets turned ones upright), or go on with {AS_THEY_ARE}."
        )
    for problem in odd:
        yield Phase(f"as it is: {problem}")
    return odd


def problems_of(people: Sequence[Sequence[Look]], *, same_person: bool = True) -> list[str]:
    """What is odd about the photos of each person; `same_person`: whether a group's photos should show one person."""
    problems = [problem for looks in people for look in looks for problem in problems_of_one(look)]
    if same_person:
        problems += [problem for looks in people for problem in unlike_the_others(looks)]
    everyone = [look for looks in people for look in looks]
    for one, other, apart in near_hashes([look.bits for look in everyone], [look.mirrored for look in everyone]):
        same = f"{everyone[other].path} shows the same picture as {everyone[one].path}"
        problems.append(f"{same} ({apart:.0%} of their perceptual hashes differ)")
    return problems


def problems_of_one(look: Look) -> Iterator[str]:
    """What is odd about a photo by itself."""
    if look.generated:
        yield f"{look.path} is a generated image, as its PNG says"
    if look.turned and not look.mended:
        yield f"{look.path} is turned: its face is upright after {TURNS[look.turned]}"
    elif not len(look.faces):
        yield f"{look.path} shows no face that is found"
    elif len(look.faces) > 1:
        yield f"{look.path} shows {len(look.faces)} faces, of which the largest would count"


def unlike_the_others(looks: Sequence[Look]) -> list[str]:
    """The photos of a person that show somebody else, as it seems: robust against a few of them."""
    looks = [look for look in looks if len(look.faces) and (look.mended or not look.turned)]
    if len(looks) < 2:
        return []
    alike = cosines(*[torch.stack([look.faces[0] for look in looks])] * 2)
    others = alike[~torch.eye(len(looks), dtype=torch.bool)].view(len(looks), -1)
    # The nearer half of the others: so a photo is not pulled down by the odd ones among them.
    near = others.topk((others.shape[1] + 1) // 2, dim=1).values.mean(dim=1)
    usual = near.median()
    spread = (near - usual).abs().median()
    least = max(STRANGER, float(usual - max(torch.tensor(UNLIKE), SPREAD * spread)))
    return [
        f"{look.path} is unlike the others of the person: cosine {value:.2f} to the nearest, where {usual:.2f} is usual"
        for look, value in zip(looks, near.tolist(), strict=True)
        if value < least
    ]


def compared_faces(looks: Sequence[Look]) -> tuple[Tensor, Tensor]:
    """(held-out [m, d], reference [d]) of the reference and the held-out photos; those without a face are left out."""
    reference, *held_out = looks
    for photos in ([reference], held_out):
        if not any(len(look.faces) for look in photos):
            others = f" and {len(photos) - 1} others" if len(photos) > 1 else ""
            raise UserError(f"No face was found in {photos[0].path}{others}: there is nothing to compare with.")
    return torch.stack([look.faces[0] for look in held_out if len(look.faces)]), reference.faces[0]

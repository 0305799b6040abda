"""Whose face is it? Rank-1 identification in a gallery of people, and what lies between strangers and a perfect copy.

    likeness to a person  = mean cosine to the person's photos in the gallery, as in R-FaceSim
    rank-1 identification = share of images whose nearest person is the right one; without a face: not identified
    position              = (likeness to the person - to others) / (ceiling - likeness to others)

The ceiling is the autoencoder's: real photos that were only encoded and decoded, against the person's other photos. No
image of the base can be expected above it.
"""

from collections.abc import Collection, Mapping, Sequence
from statistics import mean

import torch
from torch import Tensor

from .similarity import cosines


def likeness_to_people(face: Tensor, gallery: Mapping[str, Tensor]) -> dict[str, float]:
    """How like the face [d] is to each person of the gallery, who has photos [m, d]."""
    likeness = cosines(face[None], torch.cat(list(gallery.values())))[0]
    parts = likeness.split([len(photos) for photos in gallery.values()])
    return {name: part.mean().item() for name, part in zip(gallery, parts, strict=True)}


def nearest(likeness: Mapping[str, float]) -> str:
    """The person with the highest; of equal ones the first."""
    return max(likeness, key=lambda name: likeness[name])


def likeness_to_others(likeness: Mapping[str, float], identity: str, people: Collection[str]) -> float | None:
    """The mean over all of `people` but the identity, each counting once; None where there is nobody else."""
    others = [likeness[name] for name in likeness if name in people and name != identity]
    return mean(others) if others else None


def likeness_after(passed: Sequence[Tensor], photos: Tensor) -> float | None:
    """A person's photos [n, d] against the faces found in the first of them after encoding and decoding.

    `passed` has one entry [k, d], the largest face first, for each of the first photos; each is compared with all of
    the person's photos but the one it was made from. A photo whose face was lost is left out; None where none is left.
    """
    found = []
    for index, faces in enumerate(passed):
        others = torch.cat([photos[:index], photos[index + 1 :]])
        if len(faces) and len(others):
            found.append(cosines(faces[:1], others).mean().item())
    return mean(found) if found else None

"""How like the person the demo's images are, placed between other people and the person's own photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..measure.faces import FaceAnalyser, load_faces
from ..measure.similarity import ImageScore, cosines, facesim, r_facesim, score_image
from .demo_person import DemoPerson
from .face_embeddings import embeddings, only_embedding
from .generate import Image


@dataclass(frozen=True)
class Likeness:
    """Of one method's images."""

    images: int
    found: int  # images with a face
    r_facesim: float | None  # None: no face in any image
    facesim: float | None
    of_image: dict[Path, float | None]


@dataclass(frozen=True)
class Likenesses:
    """Of every method, with what the numbers lie between."""

    floor: float  # the unseen photos against other people of the class
    ceiling: float  # the unseen photos against each other and the portrait
    by_method: dict[str, Likeness]


def likenesses(person: DemoPerson, pictures: Mapping[str, Sequence[Image]]) -> Likenesses | None:
    """R-FaceSim of each method's images with SFace; None without photos that nothing was trained on."""
    if not person.unseen:
        return None
    analyser = load_faces("sface")
    reference = only_embedding(analyser, person.portrait)
    unseen = torch.stack([only_embedding(analyser, path) for path in person.unseen])
    strangers = torch.stack([only_embedding(analyser, path) for path in person.strangers])
    own = cosines(unseen, torch.cat([unseen, reference[None]]))
    itself = torch.eye(*own.shape, dtype=torch.bool)
    return Likenesses(
        cosines(unseen, strangers).mean().item(),
        own[~itself].mean().item(),
        {method: likeness(analyser, images, unseen, reference) for method, images in pictures.items()},
    )


def likeness(analyser: FaceAnalyser, images: Sequence[Image], unseen: Tensor, reference: Tensor) -> Likeness:
    """Of one method."""
    scores: dict[Path, ImageScore] = {
        image.path: score_image("demo", image.prompt, embeddings(analyser, image.path), unseen, reference)
        for image in images
    }
    found = [score for score in scores.values() if score.faces]
    return Likeness(
        len(scores),
        len(found),
        r_facesim(found) if found else None,
        facesim(found) if found else None,
        {path: score.held_out for path, score in scores.items()},
    )

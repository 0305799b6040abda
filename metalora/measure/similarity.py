"""R-FaceSim (paper, Algorithm 3), FaceSim and the copying score, from embeddings alone.

    S(identity, prompt) = mean over the identity's held-out photos of cos(generated face, photo's face)
    R-FaceSim           = mean of S over prompts, then over identities

The photo that was trained on never enters R-FaceSim: copying its pose earns nothing. FaceSim is the same against that
photo alone, and what it exceeds R-FaceSim by is copying. Pairs are never pooled: an identity with more photos, or a
prompt with more seeds, does not weigh more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from ..config import UserError

# What an image without a face does to the mean. Both are reported: the first says how alike the faces are that were
# made, the second also how often none was.
Misses = Literal["left out", "as zero"]
MISSES: tuple[Misses, ...] = get_args(Misses)
Score = Literal["held_out", "reference", "best", "copying"]


@dataclass(frozen=True)
class ImageScore:
    """One generated image. Several faces: the largest counts; None where there is no face."""

    identity: str
    prompt: str
    faces: int
    held_out: float | None  # mean cosine to the held-out photos
    reference: float | None  # cosine to the photo that was trained on
    best: float | None  # the held-out score of the face that has the highest

    @property
    def copying(self) -> float | None:
        """By how much the image is more like the photo that was trained on than like the person."""
        return None if self.reference is None or self.held_out is None else self.reference - self.held_out


def score_image(identity: str, prompt: str, faces: Tensor, held_out: Tensor, reference: Tensor) -> ImageScore:
    """faces [k, d] of the image, the largest first; held_out [m, d]; reference [d]."""
    if len(held_out) == 0:
        raise UserError(f"{identity} has no held-out photo: R-FaceSim needs at least one beside the reference.")
    if len(faces) == 0:
        return ImageScore(identity, prompt, 0, None, None, None)
    likeness = cosines(faces, held_out).mean(dim=1)
    to_reference = cosines(faces[:1], reference[None]).item()
    return ImageScore(identity, prompt, len(faces), likeness[0].item(), to_reference, likeness.max().item())


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """[n, d], [m, d] -> [n, m]."""
    return F.normalize(one.double(), dim=-1) @ F.normalize(other.double(), dim=-1).T


def nearest(face: Tensor, gallery: Mapping[str, Tensor]) -> str:
    """Whose photos [m, d] the face [d] is most like in the mean; of equal ones the first. Rank-1 identification."""
    return max(gallery, key=lambda name: cosines(face[None], gallery[name]).mean().item())


def identity_means(scores: Iterable[ImageScore], score: Score, misses: Misses) -> dict[str, float]:
    """Each identity's mean over prompts of the mean over that prompt's images.

    With misses left out, a prompt whose images all lack a face does not count, and an identity without any face is
    absent from the result.
    """

    def value_of(image: ImageScore) -> float | None:
        value = getattr(image, score)
        return 0.0 if value is None and misses == "as zero" else value

    return means_of((image.identity, image.prompt, value_of(image)) for image in scores)


def means_of(values: Iterable[tuple[str, str, float | None]]) -> dict[str, float]:
    """The same for any score: from (identity, prompt, value) each identity's mean over prompts of the prompt's mean."""
    cells: dict[str, dict[str, list[float]]] = {}
    for identity, prompt, value in values:
        prompts = cells.setdefault(identity, {})
        if value is not None:
            prompts.setdefault(prompt, []).append(value)
    return {identity: mean(map(mean, prompts.values())) for identity, prompts in cells.items() if prompts}


def detection_rate(scores: Sequence[ImageScore]) -> float:
    """The share of images in which a face was found."""
    return mean(1.0 if image.faces else 0.0 for image in scores)


def position(score: float, floor: float, ceiling: float) -> float:
    """Where a score lies between another person's (0) and the person's own photos' (1)."""
    if not floor < ceiling:
        raise UserError(
            f"The floor {floor:.3f} is not below the ceiling {ceiling:.3f}: these photos do not tell people apart."
        )
    return (score - floor) / (ceiling - floor)

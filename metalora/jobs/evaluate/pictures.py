"""How like a person are images that are there as pixels? R-FaceSim of one person, as ComfyUI's node asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import Phase, Step, UserError
from ...measure.faces import FaceAnalyser, load_faces
from ...measure.similarity import ImageScore, score_image
from ...store.images import photo_digest
from .. import Job
from .images import ImageReport, summarized


@dataclass(frozen=True)
class PictureReport:
    """The summary, and each image's scores in the images' order."""

    summary: ImageReport
    scores: list[ImageScore]


def evaluate_pictures(
    images: Sequence[Tensor],
    held_out: Sequence[Tensor],
    reference: Tensor,
    prompts: Sequence[str],
    embedder: str,
) -> Job[PictureReport]:
    """Images [3, H, W] of one person against photos that were not trained on, and against the one that was.

    `prompts` names what each image shows: one for each, or one for all; R-FaceSim averages over prompts.
    """
    named = check(images, held_out, reference, prompts)
    analyser = load_faces(embedder)
    yield Phase(f"{len(images)} images, {len(held_out)} held-out photos, {embedder}")
    unseen = torch.stack([largest(analyser, photo, f"held-out photo {i}") for i, photo in enumerate(held_out, 1)])
    trained = largest(analyser, reference, "the reference photo")
    scores = []
    for count, (image, prompt) in enumerate(zip(images, named, strict=True), 1):
        scores.append(score_image("the person", prompt, analyser.embeddings([image])[0], unseen, trained))
        yield Step(count, len(images))
    without = [f"image {count}" for count, score in enumerate(scores, 1) if not score.faces]
    return PictureReport(summarized(scores, without, analyser), scores)


def check(
    images: Sequence[Tensor], held_out: Sequence[Tensor], reference: Tensor, prompts: Sequence[str]
) -> Sequence[str]:
    """A prompt for each image; a UserError for inputs that cannot be scored."""
    if not images or not held_out:
        raise UserError(f"There are {len(images)} images and {len(held_out)} held-out photos; each needs at least one.")
    if photo_digest(reference) in map(photo_digest, held_out):
        raise UserError(
            "The reference is among the held-out photos. R-FaceSim leaves it out, or copying it would pay: take it out."
        )
    named = list(prompts) * len(images) if len(prompts) == 1 else list(prompts)
    if len(named) != len(images):
        raise UserError(
            f"There are {len(prompts)} prompts for {len(images)} images; give one for each, or one for all."
        )
    return named


def largest(analyser: FaceAnalyser, photo: Tensor, name: str) -> Tensor:
    """The largest face [d] of a photo that must show one."""
    faces = analyser.embeddings([photo])[0]
    if not len(faces):
        raise UserError(f"No face was found in {name}. Every photo that others are compared with must show one.")
    return faces[0]

"""How like a person are images that are there as pixels? R-FaceSim of one person, as ComfyUI's node asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...config import Phase, Step, UserError
from ...measure.faces import load_faces
from ...measure.similarity import ImageScore, score_image
from ...store.images import photo_digest
from .. import Job
from .images import ImageReport, summarized
from .photos import Look, look_at_one, problems_of, refuse_odd


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
    *,
    as_they_are: bool = False,
) -> Job[PictureReport]:
    """Images [3, H, W] of one person against photos that were not trained on, and against the one that was.

    The photos are looked at first: turned ones, strangers and the like are refused, unless `as_they_are`. `prompts`
    names what each image shows: one for each, or one for all; R-FaceSim averages over prompts.
    """
    named = check(images, held_out, reference, prompts)
    analyser = load_faces(embedder)
    yield Phase(f"{len(images)} images, {len(held_out)} held-out photos, {embedder}")
    named_photos = [(photo, f"held-out photo {number}") for number, photo in enumerate(held_out, 1)]
    looks = [
        look_at_one(analyser, photo, Path(name)) for photo, name in [*named_photos, (reference, "the reference photo")]
    ]
    refuse_odd([*problems_of([looks]), *scored_too(looks, images)], as_they_are)
    *unseen, trained = (largest(look) for look in looks)
    scores = []
    for count, (image, prompt) in enumerate(zip(images, named, strict=True), 1):
        scores.append(score_image("the person", prompt, analyser.embeddings([image])[0], torch.stack(unseen), trained))
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


def scored_too(looks: Sequence[Look], images: Sequence[Tensor]) -> list[str]:
    """Photos that are among the images: they would score themselves."""
    digests = {photo_digest(image): number for number, image in enumerate(images, 1)}
    return [f"{look.path} is image {digests[look.digest]} itself" for look in looks if look.digest in digests]


def largest(look: Look) -> Tensor:
    """The largest face [d] of a photo that must show one."""
    if not len(look.faces):
        raise UserError(f"No face was found in {look.path}. Every photo that others are compared with must show one.")
    return look.faces[0]

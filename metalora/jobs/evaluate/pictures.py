"""How like a person are images that are there as pixels? R-FaceSim of one person, as ComfyUI's node asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...config import Phase, Step, UserError
from ...measure.faces import load_faces
from ...measure.similarity import ImageScore, score_image
from ...store.images import photo_digest
from .. import Job
from .images import ImageReport, summarized
from .photos import compared_faces, look_at_one, problems_of, refuse_odd


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
    named = list(prompts) * len(images) if len(prompts) == 1 else list(prompts)
    if not images or not held_out:
        raise UserError(f"There are {len(images)} images and {len(held_out)} held-out photos; each needs at least one.")
    if len(named) != len(images):
        raise UserError(
            f"There are {len(prompts)} prompts for {len(images)} images; give one for each, or one for all."
        )
    analyser = load_faces(embedder)
    yield Phase(f"{len(images)} images, {len(held_out)} held-out photos, {embedder}")
    photos = [(reference, "the reference photo")]
    photos += [(photo, f"held-out photo {number}") for number, photo in enumerate(held_out, 1)]
    looks = [look_at_one(analyser, photo, Path(name)) for photo, name in photos]
    digests = {photo_digest(image): number for number, image in enumerate(images, 1)}
    scored_too = [f"{look.path} is image {digests[look.digest]} itself" for look in looks if look.digest in digests]
    refuse_odd([*problems_of([looks]), *scored_too], as_they_are)
    unseen, trained = compared_faces(looks)
    scores = []
    for count, (image, prompt) in enumerate(zip(images, named, strict=True), 1):
        scores.append(score_image("the person", prompt, analyser.embeddings(image), unseen, trained))
        yield Step(count, len(images))
    without = [f"image {count}" for count, score in enumerate(scores, 1) if not score.faces]
    return PictureReport(summarized(scores, without, analyser), scores)

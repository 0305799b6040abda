"""The images of a benchmark: every person's prompts and seeds in fixed batches, whoever makes them and when.

A batch is sampled at once, with the LoRA merged into the base where that can be, and decoded some images at a time.
None of it depends on the machine, so that a batch has the same bytes wherever and whenever it is made.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ...backbones.pipeline import PipelineBackbone
from ...backbones.protocol import Autoencoder, Backbone, Denoiser
from ...config import NONE, UserError
from ...method.adapter import Adapters, merged
from ...method.flow import joined
from ...store import files
from ...store.pictures import read_image_metadata, save_image
from .. import Job
from ..generate import Image, image_metadata
from ..lora import load_lora, lora_adapters
from ..memory import free_memory
from .plan import Layout, Plan, PlannedPerson, PlannedPrompt, Variant
from .train import Bench

DECODED_AT_ONCE = 1024 * 1024  # pixels: FLUX's autoencoder takes several GB for that many, in float32


class Wanted(NamedTuple):
    """One image of a variant."""

    prompt: PlannedPrompt
    seed: int


def wanted_of(plan: Plan, variant: Variant, person: PlannedPerson) -> list[Wanted]:
    """What is to be made of this person; without a LoRA, what is to be made for everyone of the class."""
    prompts = plan.prompts_of(person)
    if variant.method == NONE:
        like = [one for one in plan.people if one.class_name == person.class_name]
        prompts = [prompt for prompt in plan.prompts if any(prompt.asked_of(one) for one in like)]
    return [Wanted(prompt, seed) for prompt in prompts for seed in plan.seeds]


def batches_of(plan: Plan, variant: Variant, person: PlannedPerson) -> list[list[Wanted]]:
    """What is made at once: the same in every run, since rounding depends on it."""
    wanted, size = wanted_of(plan, variant, person), plan.images_at_once
    return [wanted[start : start + size] for start in range(0, len(wanted), size)]


def batches_left(variant: Variant, person: PlannedPerson, bench: Bench) -> int:
    """How many batches are not whole yet."""
    return sum(
        not all(bench.layout.image(variant, person, *wanted).exists() for wanted in batch)
        for batch in batches_of(bench.plan, variant, person)
    )


def make_images(
    variant: Variant, person: PlannedPerson, bench: Bench, denoiser: Denoiser, autoencoder: Autoencoder
) -> Job[None]:
    """Write the images that are not there yet; a batch of which one is missing is made again, to the same bytes."""
    plan, layout = bench.plan, bench.layout
    config, digest = plan.sampling_config(), None
    wearing: AbstractContextManager[None] = nullcontext()
    if variant.method != NONE:
        lora, _ = load_lora(layout.lora(variant, person), bench.backbone)
        adapters = lora_adapters(lora, bench.backbone, config.strength).to(bench.backbone.device)
        digest = files.digest_of_tensors(adapters.tensors())
        wearing = wearing_lora(adapters, denoiser, bench.backbone)
    with wearing:
        for batch in batches_of(plan, variant, person):
            images = [image_of(wanted, variant, person, layout) for wanted in batch]
            metadata = [image_metadata(image, config, bench.backbone, digest) for image in images]
            if all(is_made(image, said) for image, said in zip(images, metadata, strict=True)):
                continue
            latents = yield from denoiser.sample(
                joined([bench.prompts[image.prompt] for image in images]),
                (config.width, config.height),
                config.sampling_steps,
                config.guidance,
                [image.seed for image in images],
            )
            for image, said, picture in zip(images, metadata, decoded(latents, autoencoder), strict=True):
                save_image(picture, image.path, {"metalora": said})


def wearing_lora(adapters: Adapters, denoiser: Denoiser, backbone: Backbone) -> AbstractContextManager[None]:
    """The LoRA in the base's own weights; where those are rounded or away in turns, it acts on what they give."""
    if not isinstance(backbone, PipelineBackbone) or backbone.speed.weights or backbone.speed.swapped_blocks:
        return adapters.attached(denoiser.network)
    weights = sum(site.in_features * site.out_features for site in adapters.sites.values()) * backbone.dtype.itemsize
    fits = 2 * weights < free_memory(backbone.device)  # half is left for sampling and decoding
    return merged(adapters, denoiser.network, backbone.device if fits else torch.device("cpu"))


def decoded(latents: Tensor, autoencoder: Autoencoder) -> Iterator[Tensor]:
    """Latents [n, c, h, w] as images [3, 8h, 8w]."""
    pixels = 64 * latents.shape[-2] * latents.shape[-1]
    for several in latents.split(max(1, DECODED_AT_ONCE // pixels)):
        yield from autoencoder.decode(several)


def image_of(wanted: Wanted, variant: Variant, person: PlannedPerson, layout: Layout) -> Image:
    """An image as `generate` describes it: the text, and the seed of its noise."""
    text, seed = wanted.prompt.filled[person.class_name], wanted.prompt.noise_seeds[str(wanted.seed)]
    return Image(text, seed, variant.method != NONE, layout.image(variant, person, wanted.prompt, wanted.seed))


def is_made(image: Image, metadata: str) -> bool:
    """Whether this very image is there."""
    if not image.path.exists():
        return False
    if read_image_metadata(image.path).get("metalora") == metadata:
        return True
    raise UserError(
        f"{image.path} is not the image that this plan makes there: another LoRA or other settings made it. "
        "Move it away, or choose another folder for this run."
    )

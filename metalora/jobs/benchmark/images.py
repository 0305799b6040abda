"""The images of a benchmark: every person's prompts and seeds in fixed batches, whoever makes them and when."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

from ...backbones.protocol import Autoencoder, Denoiser, Prompt
from ...config import NONE, UserError
from ...store import files
from ...store.images import read_image_facts, save_image
from .. import Job
from ..generate import Image, facts_of_image
from ..lora import load_lora, lora_adapters
from .layout import Layout
from .plan import Plan, PlannedPerson, PlannedPrompt, Variant
from .train import Bench


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
        wearing = adapters.attached(denoiser.network)
    with wearing:
        for batch in batches_of(plan, variant, person):
            images = [image_of(wanted, variant, person, layout) for wanted in batch]
            facts = [facts_of_image(image, config, bench.backbone, digest) for image in images]
            if all(is_made(image, said) for image, said in zip(images, facts, strict=True)):
                continue
            latents = yield from denoiser.sample(
                together([bench.prompts[image.prompt] for image in images]),
                (config.width, config.height),
                config.sampling_steps,
                config.guidance,
                [image.seed for image in images],
            )
            for image, said, latent in zip(images, facts, latents, strict=True):
                save_image(autoencoder.decode(latent), image.path, {"metalora": said})


def image_of(wanted: Wanted, variant: Variant, person: PlannedPerson, layout: Layout) -> Image:
    """An image as `generate` describes it: the text, and the seed of its noise."""
    text, seed = wanted.prompt.filled[person.class_name], wanted.prompt.noise_seeds[str(wanted.seed)]
    return Image(text, seed, variant.method != NONE, layout.image(variant, person, wanted.prompt, wanted.seed))


def is_made(image: Image, facts: str) -> bool:
    """Whether this very image is there."""
    if not image.path.exists():
        return False
    if read_image_facts(image.path).get("metalora") == facts:
        return True
    raise UserError(
        f"{image.path} is not the image that this plan makes there: another LoRA or other settings made it. "
        "Move it away, or choose another folder for this run."
    )


def together(prompts: Sequence[Prompt]) -> Prompt:
    """Prompts [1, ...] as one [n, ...]."""
    return Prompt(*(torch.cat(parts) for parts in zip(*prompts, strict=True)))

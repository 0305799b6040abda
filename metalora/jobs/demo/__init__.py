"""The whole path on people who come along: their photos are learned, then images made without and with, and a page."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from ...backbones.protocol import Backbone, Denoiser, Prompt
from ...config import NONE, CropConfig, GenerateConfig, PersonalizeConfig, Phase
from ...method.flow import joined
from ...settings import config_of
from ...store import files
from ...store.cache import Cache
from ...store.pictures import save_image
from .. import Job, save_loss_curve
from ..benchmark.images import DECODED_AT_ONCE, decoded, wearing_lora
from ..benchmark.train import Group, group_of
from ..crops import write_crops
from ..generate import Image, image_metadata, plan_images
from ..lora import load_lora, lora_adapters
from ..memory import memory_warning, wants_checkpointing
from ..personalize import train
from ..photos import prompt_embeddings
from ..training_files import RANDOM, SavedRun, shipped_meta_down
from .page import EQUALLY_OBEDIENT, Demonstration, Trained, labels_of, write_page
from .people import DemoPerson
from .scores import scores_of


def demonstrate(
    backbone: Backbone, out: Path, cache: Cache, preset: str, people: Sequence[DemoPerson]
) -> Job[Demonstration]:
    """Fill `out` with LoRA files, images and `index.html`; an earlier demo there is replaced.

    Both methods learn people whose likeness can be measured, with a random Meta-Down where none ships; else a plain
    LoRA learns them.
    """
    files.check_writable(out / "index.html")
    began = time.perf_counter()
    crop_config, sampling = config_of(CropConfig, {}, preset), config_of(GenerateConfig, {}, preset)
    yield Phase(f"{len(people)} people to learn" if len(people) > 1 else f"the portrait: {people[0].credit}")
    sheet = None
    if crop_config.learn_from != "whole":
        made = yield from write_crops(people[0].portrait, out / "crops", crop_config, multiple=backbone.multiple)
        sheet = made.sheet
    shipped = shipped_meta_down(backbone.name, people[0].class_name)
    methods = ("lora", "meta-lora") if people[0].unseen else ("lora",)
    configs = [config_of(PersonalizeConfig, {"method": method}, preset) for method in methods]
    if preset in EQUALLY_OBEDIENT:
        configs[0] = replace(configs[0], steps=EQUALLY_OBEDIENT[preset])
    images = {method: _planned(people, out / "images" / method, sampling, method) for method in (NONE, *methods)}
    captions = [replace(config, class_name=person.class_name).prompt for config in configs for person in people]
    asked = list(dict.fromkeys([*captions, *(prompt for person in people for prompt in person.prompts)]))
    prompts = dict(zip(asked, (yield from prompt_embeddings(asked, backbone, cache)), strict=True))

    lessons = []
    for config in configs:
        meta_down = None if config.method == "lora" else str(shipped or RANDOM)
        lessons.append((yield from _lesson(backbone, people, out, config, crop_config, meta_down, prompts, cache)))

    latents: list[tuple[Image, str, Tensor]] = []
    trained = {}
    yield Phase("loading the transformer")
    with backbone.denoiser() as denoiser:
        yield Phase("images without a LoRA")
        for several in images[NONE]:
            latents += yield from _sampled(several, None, denoiser, backbone, prompts, sampling)
        for lesson in lessons:
            method = lesson.config.method
            trained[method] = yield from _train(lesson, denoiser, backbone)
            yield Phase(f"images with {method}")
            for several, lora in zip(images[method], trained[method].loras, strict=True):
                latents += yield from _sampled(several, lora, denoiser, backbone, prompts, sampling)
    yield Phase("decoding")
    with backbone.autoencoder() as autoencoder:
        for image, metadata, latent in latents:
            save_image(next(decoded(latent, autoencoder)), image.path, {"metalora": metadata})

    yield Phase("comparing faces")
    scores = scores_of(people, images)
    labels = labels_of(images, trained=shipped is not None)
    curve = out / "loss.png"
    save_loss_curve(curve, {labels[method]: one.losses for method, one in trained.items()})
    page, seconds = out / "index.html", time.perf_counter() - began
    shown = Demonstration(preset, people, labels, images, trained, scores, sheet, curve, page, seconds)
    write_page(shown)
    for lesson in lessons:
        lesson.saved.remove()
    return shown


@dataclass(frozen=True)
class _Lesson:
    """One method before its training, which all people share."""

    config: PersonalizeConfig  # but for the class, everyone's
    group: Group
    loras: Sequence[Path]
    checkpointing: int
    saved: SavedRun


def _lesson(
    backbone: Backbone,
    people: Sequence[DemoPerson],
    out: Path,
    shared: PersonalizeConfig,
    crops: CropConfig,
    meta_down: str | None,
    prompts: dict[str, Prompt],
    cache: Cache,
) -> Job[_Lesson]:
    """Encode the photos: the autoencoder and the transformer may not fit together."""
    photos = [person.portrait for person in people]
    configs = [replace(shared, class_name=person.class_name) for person in people]
    steps = [shared.steps]
    group = yield from group_of(photos, configs, steps, crops, backbone, "sface", meta_down, prompts, cache)
    checkpointing = wants_checkpointing(backbone, shared, crops)  # asked while the device is still empty
    if warning := memory_warning(backbone, shared, crops, checkpointing):
        yield Phase(warning)
    loras = [out / shared.method / f"{person.name}.safetensors" for person in people]
    everyone = group.metadata[0][shared.steps] | {"people": " ".join(person.name for person in people)}
    saved = SavedRun(out / shared.method / "stopped.state.safetensors", everyone)
    return _Lesson(shared, group, loras, checkpointing, saved)


def _train(lesson: _Lesson, denoiser: Denoiser, backbone: Backbone) -> Job[Trained]:
    """Everyone's LoRA, from one training that goes on where it was stopped, also while images are made."""
    config, group = lesson.config, lesson.group
    yield Phase(f"{config.method}: learning {len(group.people)} photos, {config.steps} steps")
    denoiser.checkpointing(lesson.checkpointing)
    at = {config.steps: partial(group.save, config.steps, lesson.loras, backbone)}
    losses, seconds = yield from train(denoiser, group.stack, group.people, config, lesson.saved, at)
    return Trained(config, losses, seconds * config.steps or None, lesson.loras)


def _planned(people: Sequence[DemoPerson], out: Path, sampling: GenerateConfig, method: str) -> list[list[Image]]:
    """Each person's images: an image of a prompt starts from the same noise with every method."""
    lora = method != NONE
    return [
        plan_images(
            person.prompts,
            out / person.name,
            replace(sampling, seed=sampling.seed + person.seed),
            with_lora=lora,
            compare=False,
        )
        for person in people
    ]


def _sampled(
    images: Sequence[Image],
    lora: Path | None,
    denoiser: Denoiser,
    backbone: Backbone,
    prompts: dict[str, Prompt],
    config: GenerateConfig,
) -> Job[list[tuple[Image, str, Tensor]]]:
    """(image, what its file says of itself, latents [1, c, h, w]) of one person's images, with their finished LoRA."""
    digest = None
    wearing: AbstractContextManager[None] = nullcontext()
    if lora is not None:
        loaded, _ = load_lora(lora, backbone)
        adapters = lora_adapters(loaded, backbone, config.strength).to(backbone.device)
        wearing, digest = wearing_lora(adapters, denoiser, backbone), files.digest_of_tensors(adapters.tensors())
    at_once = max(1, DECODED_AT_ONCE // (config.width * config.height))
    made: list[tuple[Image, str, Tensor]] = []
    with wearing:
        for start in range(0, len(images), at_once):
            several = images[start : start + at_once]
            latents = yield from denoiser.sample(
                joined([prompts[image.prompt] for image in several]),
                (config.width, config.height),
                config.sampling_steps,
                config.guidance,
                [image.seed for image in several],
            )
            metadata = [image_metadata(image, config, backbone, digest) for image in several]
            made += zip(several, metadata, latents.split(1), strict=True)
    return made

"""Stage 2 as a user asks for it: photos and a Meta-Down in, an ordinary LoRA out."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from ..backbones.protocol import Backbone, Denoiser, Prompt
from ..config import CropConfig, PersonalizeConfig, Phase, UserError
from ..measure import load_faces
from ..method.adapter import Adapters, fold_all
from ..method.personalize import (
    FUSED_ADAMW,
    Person,
    TrainingImages,
    averaged,
    new_optimizer,
    personalize,
    settle,
    validation_loss,
)
from ..store import files
from ..store.cache import Cache
from . import Job, optional_drawing, save_loss_curve
from .memory import memory_warning, wants_checkpointing
from .photos import (
    PlannedPhoto,
    caption_beside,
    crop_latents,
    head_weights,
    plan_photo,
    prior_images,
    prompt_embeddings,
    said_of_turns,
)
from .training_files import (
    RANDOM,
    IntermediateLoras,
    SavedRun,
    check_output,
    default_meta_down,
    save_lora,
    starting_adapters,
)


@dataclass(frozen=True)
class Training:
    """How a run went."""

    losses: list[float] = field(repr=False)  # one a step
    validation: tuple[float, float]  # without and with the adapters, on the training crops at fixed times and noise
    seconds_per_step: float  # the median


@dataclass(frozen=True)
class Personalized:
    """What a finished run leaves."""

    lora: Path
    adapter: Path
    curve: Path | None  # None where it could not be drawn
    training: Training
    prompt: str  # the caption that calls this person


def personalize_photos(
    backbone: Backbone,
    photos: Sequence[Path],
    out: Path,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    *,
    meta_down: str | None,
    cache: Cache,
    embedder: str = "sface",
    key_format: str = "diffusers",
    overwrite: bool = False,
) -> Job[Personalized]:
    """Fit heads (or a plain LoRA) to one person's photos and write `out`, its adapter file and its loss curve.

    A stopped run leaves `<out>.state`; the same call goes on from there as if it had never stopped.
    """
    if not out.name:
        raise UserError(f"--out {out} is a folder: name the LoRA file to write, such as ada.safetensors.")
    adapter_path, state_path, curve_path = (
        out.with_suffix(end) for end in (".adapter.safetensors", ".state.safetensors", ".loss.png")
    )
    check_output(out, overwrite or state_path.exists())
    adapters, origin = starting_adapters(backbone, config, meta_down)
    for sentence in said_of_meta_down(backbone, config, meta_down):
        yield Phase(sentence)
    planned = plan_photos(photos, config, crop_config, backbone, embedder)
    captions = [caption_beside(path, config) for path in photos]
    planned = [replace(photo, caption=caption) for photo, caption in zip(planned, captions, strict=True)]
    if any(captions):
        yield Phase(f"captions beside the photos: {'; '.join(map(repr, filter(None, captions)))}")
    if turned := said_of_turns(planned, [path.name for path in photos]):
        yield Phase(turned)
    metadata = run_metadata(backbone, config, crop_config, planned, origin)
    saved = SavedRun(state_path, metadata)
    check_output(out, overwrite or is_of_run(out, metadata))  # one that was killed when all but its state was done
    intermediate = IntermediateLoras(out, key_format, backbone.architecture, metadata, adapters, config)
    if not (overwrite or state_path.exists()):
        intermediate.check_free()
    trained = yield from fit(backbone, planned, adapters, config, crop_config, saved, cache, intermediate)

    files.write(adapter_path, adapters.tensors(), "adapter", metadata)
    save_lora(out, fold_all(adapters), key_format, backbone.architecture, metadata)
    saved.remove()
    failures: list[str] = []
    with optional_drawing(str(curve_path), failures):
        save_loss_curve(curve_path, {config.method: trained.losses})
    yield from map(Phase, failures)
    return Personalized(out, adapter_path, None if failures else curve_path, trained, config.prompt)


def fit(
    backbone: Backbone,
    planned: Sequence[PlannedPhoto],
    adapters: Adapters,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    saved: SavedRun,
    cache: Cache,
    intermediate: IntermediateLoras,
) -> Job[Training]:
    """Encode what is learned from and train the adapters on it; only `saved` and `intermediate` are written."""
    optimizer_named(config.optimizer)  # a package that is missing is missed before any work
    captions = [photo.caption or config.prompt for photo in planned for _ in photo.crops]
    texts = list(dict.fromkeys([config.prompt, config.class_prompt, *captions]))
    prompts = dict(zip(texts, (yield from prompt_embeddings(texts, backbone, cache)), strict=True))
    person = yield from person_of(planned, backbone, config, crop_config, prompts[config.prompt], cache)
    there = {text: on_device(prompt, backbone.device) for text, prompt in prompts.items()}
    images = replace(person.images, own_prompts=[there[caption] for caption in captions])
    # A training that goes on from another draws other noise than that one did.
    person = replace(person, images=images, seed=f"{config.seed}{saved.metadata.get('continues', '')}")
    checkpointing = wants_checkpointing(backbone, config, crop_config)  # asked while the device is still empty
    if warning := memory_warning(backbone, config, crop_config, checkpointing):
        yield Phase(warning)
    yield Phase("loading the transformer")
    with backbone.denoiser() as denoiser:
        denoiser.checkpointing(checkpointing)
        if config.prior_weight:
            class_prompt = prompts[config.class_prompt]
            prior = yield from prior_images(denoiser, class_prompt, backbone, config, crop_config, cache)
            person = replace(person, prior=prior)
        yield Phase(f"personalizing: {config.method}, {len(person.images.latents)} crops, {config.prompt!r}")
        losses, seconds = yield from train(
            denoiser, adapters.to(backbone.device), [person], config, saved, intermediate.at()
        )
        with adapters.attached(denoiser.network):
            after = validation_loss(denoiser, person.images, backbone.device)
        before = validation_loss(denoiser, person.images, backbone.device)  # last, so that the first step comes soon
        return Training(losses, (before, after), seconds)


def person_of(
    planned: Sequence[PlannedPhoto],
    backbone: Backbone,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    prompt: Prompt,
    cache: Cache,
) -> Job[Person]:
    """What somebody is learned from: the latents of their crops, what each cell counts, and the caption."""
    latents = yield from crop_latents(planned, backbone, crop_config.flips, cache)
    weights = head_weights(planned, latents, config.background_weight)
    return Person(TrainingImages(latents, on_device(prompt, backbone.device), weights), config.seed)


def on_device(prompt: Prompt, device: torch.device) -> Prompt:
    """There: what is used at every step should not be copied at every step."""
    return {name: part.to(device) for name, part in prompt.items()}


def train(
    denoiser: Denoiser,
    adapters: Adapters,
    people: Sequence[Person],
    config: PersonalizeConfig,
    saved: SavedRun,
    at: Mapping[int, Callable[[], None]] | None = None,
) -> Job[tuple[list[float], float]]:
    """Stage 2 of one person or a stack, from its start or from where it was stopped; (losses, seconds of a step).

    It is saved every so often and when it is stopped. `at` says what to do after which steps, for which the weights are
    their average, where one is kept; the state is saved after that.
    """
    optimizer, after = new_optimizer(adapters, config, optimizer_named(config.optimizer)), at or {}
    losses, seconds = saved.load(adapters, optimizer), []
    if losses:
        yield Phase(f"going on from step {len(losses)} of {saved.path.name}")
    try:
        with adapters.attached(denoiser.network):
            clock = time.perf_counter()
            for step in personalize(denoiser, adapters, optimizer, people, config, start=len(losses)):
                losses.append(step.loss or 0.0)
                seconds.append(time.perf_counter() - clock)
                if step.index in after:
                    with averaged(optimizer):
                        after[step.index]()
                if step.index in after or step.index % config.save_every == 0:
                    saved.save(adapters, optimizer, losses)
                yield step
                clock = time.perf_counter()
    except (UserError, KeyboardInterrupt):  # the latter may come while the weights move
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"Out of memory while training with batch {config.batch} ({error}). Use --gradient-checkpointing on, a "
            "lower --resolution or --batch 1; `metalora doctor` estimates what fits."
        ) from error
    except BaseException:  # stopped between two steps, or inside one by ComfyUI's Cancel: half a step moves nothing
        saved.save(adapters, optimizer, losses)
        raise
    settle(optimizer)
    return losses, median(seconds) if seconds else 0.0


def optimizer_named(name: str) -> Callable[..., torch.optim.Optimizer]:
    """What makes the optimizer of this name; other libraries' are imported here."""
    try:
        if name == "adamw-8bit":
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit
        if name == "prodigy":
            from prodigyopt import Prodigy

            return partial(Prodigy, use_bias_correction=True, safeguard_warmup=True)  # as its authors say for diffusion
    except ImportError as error:
        package = {"adamw-8bit": "bitsandbytes", "prodigy": "prodigyopt"}[name]
        raise UserError(f"--optimizer {name} needs the package {package}: pip install {package}.") from error
    return FUSED_ADAMW


def is_of_run(out: Path, metadata: dict[str, str]) -> bool:
    """Whether a LoRA is there already that says of itself what this run's would say."""
    if not out.exists():
        return False
    with files.opened(out) as file:
        said = files.own_metadata(file.metadata())
    return all(said.get(key) == value for key, value in metadata.items())


def plan_photos(
    photos: Sequence[Path], config: PersonalizeConfig, crop_config: CropConfig, backbone: Backbone, embedder: str
) -> list[PlannedPhoto]:
    """What each photo is trained as: crops around the face, or the whole of it."""
    if not photos:
        raise UserError("No photo was given.")
    faceless = crop_config.learn_from == "whole" and config.background_weight == 1
    faces = None if faceless else load_faces(embedder)
    return [plan_photo(path, crop_config, faces, backbone.multiple) for path in photos]


def said_of_meta_down(backbone: Backbone, config: PersonalizeConfig, meta_down: str | None) -> list[str]:
    """What a user should know of the Meta-Down that `starting_adapters` takes."""
    if config.method != "meta-lora" or meta_down == RANDOM:
        return []
    path = Path(meta_down or default_meta_down(backbone.name, config.class_name))
    with files.opened(path) as file:
        metadata = files.own_metadata(file.metadata())
    return files.of_other_weights(path, metadata, backbone.fingerprint("transformer"))


def run_metadata(
    backbone: Backbone,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    planned: Sequence[PlannedPhoto],
    origin: dict[str, str],
) -> dict[str, str]:
    """What the files say of themselves: every option and the hash of every input; no photo and no path."""
    return {
        "base": backbone.name,
        "base_fingerprint": backbone.fingerprint("transformer"),
        **backbone.architecture.metadata,
        "domain": config.class_name,
        "caption": config.prompt,
        "sites": config.sites,
        "rank": str(config.rank),
        "scale": str(config.scale),
        "photos": json.dumps([photo.digest for photo in planned]),
        **({"captions": json.dumps(captions)} if any(captions := [photo.caption for photo in planned]) else {}),
        "crops": str(sum(len(photo.crops) for photo in planned)),
        "options": json.dumps({**asdict(crop_config), **asdict(config)}),
        **origin,
    }

"""Stage 2 as a user asks for it: photos and a Meta-Down in, an ordinary LoRA out."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ..backbones.protocol import Backbone, Denoiser, Prompt
from ..config import CropConfig, GenerateConfig, PersonalizeConfig, Phase, UserError
from ..measure.faces import load_faces
from ..method.adapter import Adapters, new_adapters, random_meta_down
from ..method.flow import generator_of
from ..method.merge import fold_all
from ..method.personalize import TrainingImages, new_optimizer, personalize, validation_loss
from ..store import files
from ..store.cache import Cache
from . import Job
from .lora import save_lora
from .memory import wants_checkpointing
from .photos import PlannedPhoto, crop_latents, plan_photo, prompt_embeddings, whole_photo
from .plots import save_loss_curve
from .resume import SavedRun

RANDOM = "random"  # the Meta-Down that has learned nothing, drawn from the seed: the control


@dataclass(frozen=True)
class Personalized:
    """What a finished run leaves."""

    lora: Path
    adapter: Path
    curve: Path
    losses: list[float]  # one a step
    validation: tuple[float, float]  # before and after, on the training crops at fixed times and noise
    seconds_per_step: float  # the median


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
    spelling: str = "diffusers",
    overwrite: bool = False,
) -> Job[Personalized]:
    """Fit heads (or a plain LoRA) to one person's photos and write `out`, its adapter file and its loss curve.

    A stopped run leaves `<out>.state`; the same call goes on from there as if it had never stopped.
    """
    adapter_path, state_path, curve_path = (
        out.with_suffix(end) for end in (".adapter.safetensors", ".state.safetensors", ".loss.png")
    )
    check_output(out, overwrite)
    adapters, origin = starting_adapters(backbone, config, meta_down)
    planned = plan_photos(photos, config, crop_config, backbone, embedder)
    prompts = yield from prompt_embeddings([config.prompt], backbone, cache)
    latents = yield from crop_latents(planned, backbone, crop_config.flips, cache)
    images = TrainingImages(latents, prompts[0])

    facts = facts_of_run(backbone, config, crop_config, planned, origin)
    saved = SavedRun(state_path, facts)
    yield Phase("loading the transformer")
    with backbone.denoiser() as denoiser:
        prior = None
        if config.prior_weight:
            prior = yield from prior_images(denoiser, prompts[0], backbone, config, crop_config, cache)
        denoiser.checkpointing(wants_checkpointing(backbone, config, crop_config))
        with adapters.to(backbone.device).attached(denoiser.network):
            optimizer = new_optimizer(adapters, config)
            losses: list[float] = []
            seconds: list[float] = []
            if saved.exists():
                losses, before = saved.load(adapters, optimizer)
                yield Phase(f"going on from step {len(losses)} of {state_path.name}")
            else:
                before = validation_loss(denoiser, images, backbone.device)
            yield Phase(f"personalizing: {config.method}, {len(latents)} crops, {config.prompt!r}")
            try:
                clock = time.perf_counter()
                for step in personalize(denoiser, optimizer, images, config, prior=prior, start=len(losses)):
                    losses.append(step.loss or 0.0)
                    seconds.append(time.perf_counter() - clock)
                    if step.index % config.save_every == 0:
                        saved.save(adapters, optimizer, losses, before)
                    yield step
                    clock = time.perf_counter()
            except GeneratorExit:
                saved.save(adapters, optimizer, losses, before)
                raise
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"Out of memory while training at {crop_config.resolution} px, batch {config.batch} ({error}). "
                    "Use --gradient-checkpointing on, a lower --resolution or --batch 1; `metalora doctor` estimates "
                    "what fits."
                ) from error
            after = validation_loss(denoiser, images, backbone.device)

    files.write(adapter_path, adapters.tensors(), "adapter", facts)
    save_lora(out, fold_all(adapters), spelling, backbone.shape, facts)
    save_loss_curve(curve_path, {config.method: losses})
    saved.remove()
    return Personalized(out, adapter_path, curve_path, losses, (before, after), median(seconds) if seconds else 0.0)


def check_output(out: Path, overwrite: bool) -> None:
    """Refuse, before any work, a place that cannot be written or that holds a finished LoRA."""
    if out.suffix != ".safetensors":
        raise UserError(f"--out is {out}, but a LoRA file ends with .safetensors.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already. Choose another --out, or say --overwrite to replace it.")
    files.check_writable(out)


def starting_adapters(
    backbone: Backbone, config: PersonalizeConfig, meta_down: str | None
) -> tuple[Adapters, dict[str, str]]:
    """Fresh adapters, and the facts of the Meta-Down they stand on."""
    sites, generator = backbone.sites(config.sites), generator_of(config.seed, "heads")
    if config.method != "meta-lora":
        if meta_down is not None:
            raise UserError(f"--meta-down is for --method meta-lora; {config.method} trains without one.")
        return new_adapters(sites, config.rank, generator, scale=config.scale), {}
    if meta_down is None:
        raise UserError(
            "--method meta-lora needs --meta-down FILE, trained for this base and class. Without one, "
            "--method lora-crops trains a plain LoRA; --meta-down random is the untrained control."
        )
    if meta_down == RANDOM:
        downs = random_meta_down(sites, config.meta_rank, generator_of(config.seed, "meta-down"))
        origin = {"meta_down": f"random, seed {config.seed}", "meta_rank": str(config.meta_rank)}
    else:
        path = Path(meta_down)
        tensors, facts = files.read(path, ("meta-down",), base=backbone.name)
        downs = {name.removesuffix(".down"): tensor for name, tensor in tensors.items()}
        ranks = {tensor.shape[0] for tensor in downs.values()}
        absent = [site.name for site in sites if site.name not in downs]
        if absent:
            raise UserError(
                f"{path} has no Meta-Down for {len(absent)} sites of {config.sites!r}, {absent[0]} among them."
            )
        misfit = [site for site in sites if downs[site.name].shape[1:] != (site.in_features,)]
        if misfit:
            raise UserError(
                f"{path}: {misfit[0].name} has shape {tuple(downs[misfit[0].name].shape)}, but the layer takes "
                f"{misfit[0].in_features} numbers ({len(misfit)} sites do not fit)."
            )
        if config.rank > min(ranks):
            raise UserError(
                f"{path} has rank {min(ranks)} (r1), so --rank (r2) can be at most that, not {config.rank}."
            )
        origin = {"meta_down": files.digest_of_tensors(tensors), "meta_rank": str(max(ranks))}
        origin |= {"domain": facts["domain"]} if "domain" in facts else {}
    return new_adapters(sites, config.rank, generator, meta_down=downs, scale=config.scale), origin


def plan_photos(
    photos: Sequence[Path], config: PersonalizeConfig, crop_config: CropConfig, backbone: Backbone, embedder: str
) -> list[PlannedPhoto]:
    """What each photo is trained as: the whole of it for a plain LoRA, else crops around the face."""
    if not photos:
        raise UserError("No photo was given.")
    if config.method == "lora":
        return [whole_photo(path, crop_config, backbone.multiple) for path in photos]
    faces = load_faces(embedder)
    return [plan_photo(path, crop_config, faces, backbone.multiple) for path in photos]


def prior_images(
    denoiser: Denoiser,
    prompt: Prompt,
    backbone: Backbone,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    cache: Cache,
) -> Job[TrainingImages]:
    """What the base itself makes of the class (DreamBooth's prior preservation), as latents: nothing is decoded."""
    sampling, size = GenerateConfig(), (crop_config.resolution // backbone.multiple * backbone.multiple,) * 2
    latents: list[Tensor] = []
    for index in range(config.prior_images):
        key = cache.key(
            what="prior",
            prompt=files.digest_of_tensors(prompt._asdict()),
            size=list(size),
            seed=index,
            steps=sampling.sampling_steps,
            guidance=sampling.guidance,
            transformer=backbone.fingerprint("transformer"),
        )
        if key not in cache:
            yield Phase(f"the base's own image {index + 1} of {config.prior_images}, for prior preservation")
            made = yield from denoiser.sample(prompt, size, sampling.sampling_steps, sampling.guidance, seed=index)
            cache.put(key, {"latent": made})
        latents.append(cache.get(key)["latent"])
    return TrainingImages(latents, prompt)


def facts_of_run(
    backbone: Backbone,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    planned: Sequence[PlannedPhoto],
    origin: dict[str, str],
) -> dict[str, str]:
    """What the files say of themselves: every knob and the hash of every input; no photo and no path."""
    return {
        "base": backbone.name,
        "base_fingerprint": backbone.fingerprint("transformer"),
        "shape": json.dumps(asdict(backbone.shape)),
        "domain": config.class_name,
        "caption": config.prompt,
        "sites": config.sites,
        "rank": str(config.rank),
        "scale": str(config.scale),
        "photos": json.dumps([photo.digest for photo in planned]),
        "crops": str(sum(len(photo.crops) for photo in planned)),
        "knobs": json.dumps({**asdict(crop_config), **asdict(config)}),
        **origin,
    }

"""Images of prompts, with a LoRA, without one, or both side by side."""

import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from ..backbones.protocol import Backbone
from ..config import GenerateConfig, Phase, UserError
from ..store import files
from ..store.cache import Cache
from ..store.images import read_image_facts, save_image
from . import Job
from .lora import load_lora, lora_adapters
from .photos import prompt_embeddings


@dataclass(frozen=True)
class Image:
    """One image to make: `lora` says whether the LoRA is worn."""

    prompt: str
    seed: int
    lora: bool
    path: Path


def generate_images(
    backbone: Backbone,
    prompts: Sequence[str],
    out: Path,
    config: GenerateConfig,
    *,
    lora: Path | None,
    compare: bool,
    cache: Cache,
    overwrite: bool = False,
) -> Job[list[Image]]:
    """Write `<prompt>-<seed>.png` into `out`; images that a stopped call already made are kept.

    With `compare`, each image is made without the LoRA too, from the same noise, as `<prompt>-<seed>-base.png`.
    """
    if not prompts:
        raise UserError("No prompt was given: say --prompt 'a photo of a woman in a garden'.")
    if compare and lora is None:
        raise UserError("--compare shows images with and without a LoRA: say which with --lora FILE.")
    weights, digest = None, None
    if lora is not None:
        loaded, left_out = load_lora(lora, backbone)
        for sentence in left_out:
            yield Phase(sentence)
        weights = lora_adapters(loaded, backbone, config.strength).to(backbone.device)
        digest = files.digest_of_tensors(weights.tensors())
    wanted = plan_images(prompts, out, config, with_lora=lora is not None, compare=compare)
    facts = {image: facts_of_image(image, config, backbone, digest) for image in wanted}
    todo = [image for image in wanted if not already_made(image, facts[image], overwrite)]
    files.check_writable(out / "image.png")
    embeddings = dict(zip(prompts, (yield from prompt_embeddings(prompts, backbone, cache)), strict=True))

    keys = {image: cache.key(what="image", facts=facts[image]) for image in todo}
    unsampled = [image for image in todo if keys[image] not in cache]
    if unsampled:
        yield Phase("loading the transformer")
        with backbone.denoiser() as denoiser:
            for count, image in enumerate(unsampled, 1):
                yield Phase(f"image {count} of {len(unsampled)}: {image.path.name}")
                with weights.attached(denoiser.network) if weights and image.lora else nullcontext():
                    latents = yield from denoiser.sample(
                        embeddings[image.prompt],
                        (config.width, config.height),
                        config.sampling_steps,
                        config.guidance,
                        [image.seed],
                    )
                cache.put(keys[image], {"latents": latents})  # a stopped call finds it when it is repeated
    if todo:
        yield Phase("decoding")
        with backbone.autoencoder() as autoencoder:
            for image in todo:
                decoded = autoencoder.decode(cache.get(keys[image])["latents"][0])
                save_image(decoded, image.path, {"metalora": facts[image]})
    return wanted


def plan_images(
    prompts: Sequence[str], out: Path, config: GenerateConfig, *, with_lora: bool, compare: bool
) -> list[Image]:
    """Prompts x seeds x (with the LoRA, without)."""
    names = unique_names(prompts)
    return [
        Image(prompt, seed, lora, out / f"{name}-{seed}{'' if lora == with_lora else '-base'}.png")
        for prompt, name in zip(prompts, names, strict=True)
        for seed in range(config.seed, config.seed + config.images_per_prompt)
        for lora in ([True, False] if compare else [with_lora])
    ]


def unique_names(prompts: Sequence[str]) -> list[str]:
    """A short file name for each prompt; equal ones are numbered."""
    names: list[str] = []
    for prompt in prompts:
        name = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].rstrip("-") or "image"
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def facts_of_image(image: Image, config: GenerateConfig, backbone: Backbone, lora: str | None) -> str:
    """What the PNG says of itself: enough to make it again."""
    knobs = {name: knob for name, knob in asdict(config).items() if name not in ("images_per_prompt", "seed")}
    return json.dumps(
        {
            "prompt": image.prompt,
            "seed": image.seed,
            "lora": lora if image.lora else None,
            "base": backbone.name,
            "base_fingerprint": backbone.fingerprint("transformer"),
            **knobs,
        }
    )


def already_made(image: Image, facts: str, overwrite: bool) -> bool:
    """Whether this very image is there; a UserError if another one has its name."""
    if overwrite or not image.path.exists():
        return False
    if read_image_facts(image.path).get("metalora") == facts:
        return True
    raise UserError(
        f"{image.path} exists and was made with other settings. Choose another --out, or say --overwrite to replace it."
    )

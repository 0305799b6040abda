"""Images of prompts, with a LoRA, without one, or both side by side."""

import json
import re
import unicodedata
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from ..backbones.protocol import Backbone
from ..config import GenerateConfig, Phase, UserError, is_text
from ..store import files
from ..store.cache import Cache
from ..store.images import read_photo
from ..store.pictures import SHEET, read_image_metadata, save_image, table
from ..store.text import as_disks_compare
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
    if broken := [prompt for prompt in prompts if not is_text(prompt)]:
        raise UserError(f"The prompt {broken[0]!r} is not text in this system's encoding: UTF-8 is needed.")
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
    metadata = {image: image_metadata(image, config, backbone, digest) for image in wanted}
    todo = [image for image in wanted if not already_made(image, metadata[image], overwrite)]
    files.check_writable(out / "image.png")
    embeddings = dict(zip(prompts, (yield from prompt_embeddings(prompts, backbone, cache)), strict=True))

    keys = {image: cache.key(what="image", metadata=metadata[image]) for image in todo}
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
                save_image(decoded, image.path, {"metalora": metadata[image]})
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
    """A short file name for each prompt, of its letters and digits in any script; names that are alike are numbered.

    No two are the same, also where a disk takes A for a, or an accented letter for the letter and its accent.
    """
    slugs = [slug(prompt) for prompt in prompts]
    taken: set[str] = set()
    names: list[str] = []
    for index, name in enumerate(slugs):
        number = index + 1
        while name in taken or (name != slugs[index] and name in slugs):  # a numbered name may be another's own
            name, number = f"{slugs[index]}-{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def slug(prompt: str) -> str:
    """At most 60 letters and 120 bytes of a prompt that every disk takes for a name; never empty."""
    kept = "".join(letter if unicodedata.category(letter)[0] in "LMN" else "-" for letter in as_disks_compare(prompt))
    short = re.sub("-+", "-", kept).strip("-")[:60].encode("utf-8", "ignore")[:120].decode("utf-8", "ignore")
    return short.strip("-") or "image"


def image_metadata(image: Image, config: GenerateConfig, backbone: Backbone, lora: str | None) -> str:
    """What the PNG says of itself: enough to make it again."""
    options = {name: option for name, option in asdict(config).items() if name not in ("images_per_prompt", "seed")}
    return json.dumps(
        {
            "prompt": image.prompt,
            "seed": image.seed,
            "lora": lora if image.lora else None,
            "base": backbone.name,
            "base_fingerprint": backbone.fingerprint("transformer"),
            **options,
        }
    )


def already_made(image: Image, metadata: str, overwrite: bool) -> bool:
    """Whether this very image is there; a UserError if another one has its name."""
    if overwrite or not image.path.exists():
        return False
    if read_image_metadata(image.path).get("metalora") == metadata:
        return True
    raise UserError(
        f"{image.path} exists and was made with other settings. Choose another --out, or say --overwrite to replace it."
    )


def write_comparison(images: Sequence[Image], path: Path) -> Path:
    """One row a prompt: the images with the LoRA, and beside each the same noise without it where it was made."""
    prompts = list(dict.fromkeys(image.prompt for image in images))
    rows = [
        [
            (read_photo(image.path), f"{'with' if image.lora else 'without'} LoRA, seed {image.seed}: {prompt}")
            for image in images
            if image.prompt == prompt
        ]
        for prompt in prompts
    ]
    save_image(table(rows), path, {"metalora": json.dumps({"kind": SHEET})})
    return path

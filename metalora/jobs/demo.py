"""The whole path on a portrait that comes along: crops, three ways to personalize, finished files, images."""

from dataclasses import dataclass
from pathlib import Path

from ..backbones.protocol import Backbone
from ..config import CropConfig, GenerateConfig, PersonalizeConfig, Phase, with_preset
from ..store.cache import Cache
from ..store.images import demo_portrait, read_photo, save_image
from ..store.pictures import table
from . import Job
from .crops import write_crops
from .generate import generate_images
from .meta_downs import RANDOM
from .personalize import Personalized, personalize_photos
from .plots import save_loss_curve

PROMPTS = ("a photo of a woman", "a photo of a woman on a beach", "a painting of a woman", "a woman in a red coat")
METHODS = {"meta-lora": "Meta-LoRA (random Meta-Down)", "lora": "LoRA, whole photo", "lora-crops": "LoRA + crops"}


@dataclass(frozen=True)
class Demonstration:
    """What to show at the end."""

    summary: str
    sheet: Path


def demonstrate(backbone: Backbone, out: Path, cache: Cache, preset: str) -> Job[Demonstration]:
    """Fill `out` with a crops sheet, a loss curve, LoRA files and images; an earlier demo there is replaced."""
    crop_config = with_preset(CropConfig, preset)
    sampling = with_preset(GenerateConfig, preset)
    portrait = demo_portrait()
    yield Phase(f"the portrait: {portrait.name} (NASA, public domain)")
    yield from write_crops(portrait, out / "crops", crop_config, multiple=backbone.multiple)

    results: dict[str, Personalized] = {}
    pictures: dict[str, list[Path]] = {}
    for method in METHODS:
        config = with_preset(PersonalizeConfig, preset, method=method, class_name="woman")
        lora = out / f"{method}.safetensors"
        results[method] = yield from personalize_photos(
            backbone,
            [portrait],
            lora,
            config,
            crop_config,
            meta_down=RANDOM if method == "meta-lora" else None,
            cache=cache,
            overwrite=True,
        )
        images = yield from generate_images(
            backbone,
            PROMPTS,
            out / "images" / method,
            sampling,
            lora=lora,
            compare=method == "meta-lora",
            cache=cache,
            overwrite=True,
        )
        pictures[METHODS[method]] = [image.path for image in images if image.lora]
        if method == "meta-lora":
            pictures = {"without LoRA": [image.path for image in images if not image.lora], **pictures}

    save_loss_curve(out / "loss.png", {METHODS[method]: result.training.losses for method, result in results.items()})
    rows = [
        [(read_photo(path), f"{label}: {prompt}") for prompt, path in zip(PROMPTS, paths, strict=True)]
        for label, paths in pictures.items()
    ]
    save_image(table(rows), out / "images.png")
    return Demonstration(summarized(results, preset), out / "images.png")


def summarized(results: dict[str, Personalized], preset: str) -> str:
    """A table of what was measured."""
    lines = [f"{'':30}validation loss       s/step   LoRA file"]
    for method, result in results.items():
        before, after = result.training.validation
        size = result.lora.stat().st_size / 1e6
        numbers = f"{before:.4f} -> {after:.4f}    {result.training.seconds_per_step:.3f}"
        lines.append(f"{METHODS[method]:30}{numbers}    {size:.2f} MB  {result.lora}")
    if preset == "tiny":
        lines.append("The tiny backbone has random weights: its images are noise, and only the path is real.")
    return "\n".join(lines)

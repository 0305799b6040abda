"""Short runs of the user's jobs on the tiny FLUX."""

from pathlib import Path

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import CropConfig, PersonalizeConfig
from metalora.jobs import run
from metalora.jobs.personalize import Personalized, personalize_photos
from metalora.method.adapter import random_meta_down
from metalora.method.flow import generator_of
from metalora.store import files
from metalora.store.cache import Cache

CONFIG = PersonalizeConfig(steps=30, learning_rate=3e-3, class_name="woman", save_every=7)
CROPS = CropConfig(resolution=64)


def personalized(
    backbone: PipelineBackbone,
    photo: Path,
    out: Path,
    cache: Cache,
    config: PersonalizeConfig = CONFIG,
    meta_down: str | None = "random",
    **options: object,
) -> Personalized:
    if config.method != "meta-lora":
        meta_down = None
    return run(personalize_photos(backbone, [photo], out, config, CROPS, meta_down=meta_down, cache=cache, **options))


def meta_down_file(backbone: PipelineBackbone, path: Path, rank: int = 16, **metadata: str) -> Path:
    downs = random_meta_down(backbone.sites("all"), rank, generator_of("a domain"))
    tensors = {f"{site}.down": down for site, down in downs.items()}
    files.write(path, tensors, "meta-down", {"base": backbone.name, "domain": "woman", **metadata})
    return path

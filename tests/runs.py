"""Short runs of the user's jobs on the tiny FLUX."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import CropConfig, PersonalizeConfig, Step
from metalora.jobs import Progress, run
from metalora.jobs.personalize import Personalized, personalize_photos
from metalora.method.adapter import random_meta_down
from metalora.method.flow import generator_of
from metalora.store import files
from metalora.store.cache import Cache

CONFIG = PersonalizeConfig(steps=30, learning_rate=3e-3, class_name="woman", save_every=7)
CROPS = CropConfig(resolution=64)


def personalized(
    backbone: PipelineBackbone,
    cache: Cache,
    photo: Path,
    out: Path,
    config: PersonalizeConfig = CONFIG,
    meta_down: str | None = "random",
    show: Callable[[Progress], None] = lambda progress: None,
    **options: object,
) -> Personalized:
    if config.method != "meta-lora":
        meta_down = None
    job = personalize_photos(backbone, [photo], out, config, CROPS, meta_down=meta_down, cache=cache, **options)
    return run(job, show)


class Stopped(Exception):
    """As whoever shows the progress may end a job."""


def stopping_after(index: int, total: int) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        if isinstance(progress, Step) and (progress.index, progress.total) == (index, total):
            raise Stopped

    return show


def python(code: str, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a process of its own made of this code, on this tree."""
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], env=given, capture_output=True, text=True)


def losses_around_a_stop(start: Callable[[str], Any], run: Callable[[Any], Any]) -> tuple[list, list]:
    """Of one of the miniature's trainings in one go, and of one that was saved after two steps and started again."""

    def losses(training: Any) -> Iterator[float]:
        return (float(step.figures["loss"]) for step in run(training))

    whole, first = list(losses(start("whole.pt"))), start("parts.pt")
    steps = losses(first)
    parts = [next(steps), next(steps)]
    first.save()
    return whole, [*parts, *losses(start("parts.pt"))]


def meta_down_file(backbone: PipelineBackbone, path: Path, rank: int = 16, **metadata: str) -> Path:
    downs = random_meta_down(backbone.sites("all"), rank, generator_of("a domain"))
    tensors = {f"{site}.down": down for site, down in downs.items()}
    files.write(path, tensors, "meta-down", {"base": backbone.name, "domain": "woman", **metadata})
    return path

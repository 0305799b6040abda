"""All the steps of one person on FLUX.1-dev's shapes with random weights, from the loaded base to the last step.

    python -m bench.personalization                                # the miniature's size, on the CPU
    python -m bench.personalization --size flux-dev --pixels 1024 --device cuda --precision bf16 --compile

25 crops of the five aspect ratios, each with its mirror image, go through an autoencoder and are then trained on as
`metalora personalize` does; what compiling takes is in the time. Finding the face and reading the base are not.
"""

import argparse
import sys
import time

import torch
from torch import Tensor

from metalora.backbones.keys import sites
from metalora.backbones.load import load_backbone
from metalora.config import PersonalizeConfig
from metalora.method.adapter import new_adapters, random_meta_down
from metalora.method.crops import RATIOS, training_size
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize

from .generation import MINIATURE, autoencoder_of
from .measuring import synchronize
from .reporting import written
from .worlds import SIZES, options, world

CROPS = 25
MULTIPLE = 16  # pixels of a token
FIRST = 2 * len(RATIOS)  # steps in which every aspect ratio is likely to have been met, and compiled for


def main() -> int:
    parser = options(__doc__)
    parser.set_defaults(steps=375)
    return written(parser.parse_args(), measured, table)


def measured(arguments: argparse.Namespace) -> dict:
    """Seconds of encoding, of the first steps and of the others."""
    denoiser, prompt, _ = world(arguments)
    config = PersonalizeConfig(steps=arguments.steps, batch=arguments.batch)
    chosen = sites(SIZES[arguments.size], config.sites, fused=False)
    meta_down = random_meta_down(chosen, config.meta_rank, torch.Generator().manual_seed(0))
    adapters = new_adapters(chosen, config.rank, torch.Generator().manual_seed(1), meta_down=meta_down)
    optimizer = new_optimizer(adapters.to(arguments.device), config)
    seconds, began = {}, time.perf_counter()
    latents = encoded(arguments)
    seconds["encoding"], began = time.perf_counter() - began, time.perf_counter()
    with adapters.attached(denoiser.network):
        person = Person(TrainingImages(latents, prompt), 0)
        for step in personalize(denoiser, adapters, optimizer, [person], config):
            if step.index == min(FIRST, arguments.steps):
                synchronize(arguments.device)
                seconds["first steps"], began = time.perf_counter() - began, time.perf_counter()
    synchronize(arguments.device)
    seconds["other steps"] = time.perf_counter() - began
    report = {"whole_seconds": sum(seconds.values()), "phases": seconds}
    if arguments.device.startswith("cuda"):
        report["whole_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return report


@torch.no_grad()
def encoded(arguments: argparse.Namespace) -> list[Tensor]:
    """The latents [2, c, h / 8, w / 8] of noise as crops."""
    generator, latents = torch.Generator().manual_seed(0), []
    with autoencoder_of(arguments, load_backbone(MINIATURE, device=arguments.device)) as autoencoder:
        for index in range(CROPS):
            wide, high = RATIOS[index % len(RATIOS)]
            width, height = training_size(wide / high, arguments.pixels, MULTIPLE)
            crop = torch.rand(3, height, width, generator=generator)
            latents.append(torch.stack([autoencoder.encode(view) for view in (crop, crop.flip(2))]))
    return latents


def table(report: dict) -> str:
    """For a terminal."""
    lines = [f"{name:14}{seconds:9.1f} s" for name, seconds in report["phases"].items()]
    lines.append(f"{report['steps']} steps at {report['pixels']} px in {report['whole_seconds']:.1f} s")
    return "\n".join([*lines, f"attention: {report['attention']}; {report['run']}"])


if __name__ == "__main__":
    sys.exit(main())

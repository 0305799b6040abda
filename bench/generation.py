"""Images a minute with a LoRA: one by one, in batches, with the LoRA merged, and decoded together.

    python -m bench.generation                                    # the miniature's size, on the CPU
    python -m bench.generation --size flux-dev --pixels 1024 --device cuda --precision bf16 --compile

The last way is the benchmark's own. Weights of the transformer are random; so are the autoencoder's of flux-dev.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from metalora.backbones.flux import FluxAutoencoder, FluxBackbone, FluxDenoiser
from metalora.backbones.flux_configs import autoencoder_config
from metalora.backbones.keys import sites
from metalora.backbones.load import load_backbone
from metalora.backbones.protocol import Prompt
from metalora.commands.base_model import speed_of
from metalora.jobs import run
from metalora.jobs.benchmark.images import decoded, worn
from metalora.method.adapter import Adapters, new_adapters
from metalora.store.images import save_image

from .phases import PhaseClock, Times, summed
from .reporting import written
from .worlds import PRECISIONS, SIZES, options, world

GUIDANCE = 3.5
MINIATURE = "miniature"


@dataclass(frozen=True)
class Way:
    """How a number of images is made."""

    together: bool
    merged: bool
    decoded_together: bool


WAYS = {
    "one by one": Way(False, False, False),
    "in batches": Way(True, False, False),
    "merged": Way(True, True, False),
    "merged, decoded together": Way(True, True, True),
}


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=10, help="of each way, at once where together (default 10)")
    parser.add_argument("--sampling-steps", type=int, default=20, help="of an image (default 20)")
    return written(parser.parse_args(), measured, table)


@torch.no_grad()
def measured(arguments: argparse.Namespace) -> dict:
    """Each way once for warmth, with one sampling step, and once for the figures."""
    denoiser, prompt, _ = world(arguments)
    generator = torch.Generator().manual_seed(1)
    adapters = new_adapters(sites(SIZES[arguments.size], "all", fused=False), 1, generator).to(arguments.device)
    backbone = load_backbone(MINIATURE, device=arguments.device)
    backbone.speed, backbone.dtype = speed_of(arguments), PRECISIONS[arguments.precision]  # `worn` goes by them
    with autoencoder_of(arguments, backbone) as autoencoder, tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, way in WAYS.items():
            for steps in (1, arguments.sampling_steps):
                worlds = (denoiser, prompt, adapters, autoencoder, backbone)
                found[name] = made(arguments, way, steps, worlds, Path(folder))
    ways = {
        name: {
            "seconds": {phase: round(clock, 4) for phase, (clock, _) in times.items()},
            "processor_seconds": {phase: round(worked, 4) for phase, (_, worked) in times.items()},
            "images_a_minute": 60 * arguments.images / summed(times)[0],
            "processor_seconds_an_image": summed(times)[1] / arguments.images,
        }
        for name, times in found.items()
    }
    last = ways[list(WAYS)[-1]]["images_a_minute"]
    return {
        "images": arguments.images,
        "sampling_steps": arguments.sampling_steps,
        "ways": ways,
        "images_a_minute": last,
        "seconds_an_image": 60 / last,
    }


def made(
    arguments: argparse.Namespace,
    way: Way,
    steps: int,
    worlds: tuple[FluxDenoiser, Prompt, Adapters, FluxAutoencoder, FluxBackbone],
    folder: Path,
) -> Times:
    """Make the images and say where the time went."""
    denoiser, prompt, adapters, autoencoder, backbone = worlds
    seeds = list(range(arguments.images))
    batches = [seeds] if way.together else [[seed] for seed in seeds]
    clock = PhaseClock("putting the LoRA on and off", arguments.device)
    wearing = worn(adapters, denoiser, backbone) if way.merged else adapters.attached(denoiser.network)
    with wearing:
        for batch in batches:
            clock.turn_to("sampling")
            size = (arguments.pixels, arguments.pixels)
            latents = run(denoiser.sample(prompt, size, steps, GUIDANCE, batch))
            clock.turn_to("decoding")
            several = decoded(latents, autoencoder) if way.decoded_together else map(autoencoder.decode, latents)
            pictures = list(several)
            clock.turn_to("saving")
            for seed, picture in zip(batch, pictures, strict=True):
                save_image(picture, folder / f"{seed}.png")
        clock.turn_to("putting the LoRA on and off")
    clock.turn_to("")
    return clock.found


@contextmanager
def autoencoder_of(arguments: argparse.Namespace, backbone: FluxBackbone) -> Iterator[FluxAutoencoder]:
    """The miniature's own, or one of FLUX's shape."""
    if arguments.size == MINIATURE:
        with backbone.autoencoder() as autoencoder:
            yield autoencoder
        return
    from diffusers import AutoencoderKL

    with torch.device(arguments.device):  # not while the images are made: their noise is drawn on the CPU
        vae = AutoencoderKL(**autoencoder_config((128, 256, 512, 512), 2, 16)).eval()
    yield FluxAutoencoder(vae)


def table(report: dict) -> str:
    """For a terminal."""
    lines = [f"{'':28}{'images a minute':>16}{'processor s':>14}   seconds"]
    for name, way in report["ways"].items():
        phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in way["seconds"].items())
        figures = f"{way['images_a_minute']:16.1f}{way['processor_seconds_an_image']:14.3f}"
        lines.append(f"{name:28}{figures}   {phases}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

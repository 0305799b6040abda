"""What the benchmarks train: a frozen transformer with random weights, which do not change what a step costs."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from metalora.backbones.checkpointing import Checkpointing
from metalora.backbones.flux import FluxDenoiser
from metalora.backbones.flux_configs import scheduler_config, transformer_config
from metalora.backbones.keys import FluxShape
from metalora.backbones.protocol import Prompt
from metalora.backbones.speed import ATTENTION, Speed, attention_that_runs, prepare

from .measuring import machine

SIZES = {
    "miniature": FluxShape(256, 2, 4, 64, 128, 128, guidance=True),
    "flux-dev": FluxShape(3072, 19, 38, 64, 4096, 768, guidance=True),
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CHECKPOINTING = {how.name.lower(): how for how in Checkpointing}
TOKENS = {"miniature": 32, "flux-dev": 512}


def world(arguments: argparse.Namespace, plain: bool = False) -> tuple[FluxDenoiser, Prompt, Tensor]:
    """The transformer, a prompt, and one crop's latents with its mirror image.

    A plain one has none of our ways to run it: whole blocks are computed again, if anything is.
    """
    from diffusers import FluxTransformer2DModel

    shape, dtype = SIZES[arguments.size], PRECISIONS[arguments.precision]
    torch.manual_seed(0)
    with torch.device(arguments.device):
        network = FluxTransformer2DModel(**transformer_config(shape)).to(dtype).eval().requires_grad_(False)
    how = CHECKPOINTING[arguments.checkpointing]
    denoiser = FluxDenoiser(network if plain else prepare(network, speed_of(arguments)), scheduler_config(shape), True)
    denoiser.checkpointing(how != Checkpointing.NONE if plain else how)
    prompt = Prompt(torch.randn(1, TOKENS[arguments.size], shape.joint_dim), torch.randn(1, shape.pooled_dim))
    return denoiser, prompt, torch.randn(2, shape.in_channels // 4, arguments.pixels // 8, arguments.pixels // 8)


def speed_of(arguments: argparse.Namespace) -> Speed:
    """The ways to run our transformer that the flags ask for."""
    return Speed(compiled=arguments.compile, attention=arguments.attention, eight_bit=arguments.eight_bit)


def facts(arguments: argparse.Namespace) -> dict[str, object]:
    """What was measured, for the result's file."""
    device, dtype, speed = torch.device(arguments.device), PRECISIONS[arguments.precision], speed_of(arguments)
    return {
        "size": arguments.size,
        "pixels": arguments.pixels,
        "batch": arguments.batch,
        "precision": arguments.precision,
        "checkpointing": arguments.checkpointing,
        "compiled": speed.compiled,
        "eight_bit": speed.eight_bit,
        "attention": attention_that_runs(speed, device, dtype),
        "machine": machine(arguments.device),
        "steps": arguments.steps,
    }


def options(description: str) -> argparse.ArgumentParser:
    """The flags that every benchmark of a training step has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="miniature")
    parser.add_argument("--pixels", type=int, default=128, help="of the crop's sides (default 128)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20, help="measured, after 3 of warm-up (default 20)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", choices=CHECKPOINTING, default="none")
    parser.add_argument("--compile", action="store_true", help="our blocks")
    parser.add_argument("--attention", choices=ATTENTION, default="auto", help="our kernel")
    parser.add_argument("--eight-bit", action="store_true", help="our base in int8")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--out", type=Path, metavar="JSON")
    return parser

"""What the benchmarks train: a frozen transformer with random weights, which do not change what a step costs."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metalora.backbones.checkpointing import Checkpointing
from metalora.backbones.flux import FluxDenoiser
from metalora.backbones.flux_configs import scheduler_config, transformer_config
from metalora.backbones.keys import FluxShape
from metalora.backbones.protocol import Prompt
from metalora.backbones.speed import attention_that_runs, place, prepare
from metalora.commands.base_model import add_speed, speed_of
from metalora.jobs.memory import cap_memory

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
    shape, device = SIZES[arguments.size], torch.device(arguments.device)
    torch.manual_seed(0)
    network = random_transformer(shape, device, PRECISIONS[arguments.precision])
    how, speed = CHECKPOINTING[arguments.checkpointing], speed_of(arguments)
    speed.check(device)
    if not plain:
        network = place(prepare(network, speed), speed, device)
    denoiser = FluxDenoiser(network, scheduler_config(shape), True)
    denoiser.checkpointing(how != Checkpointing.NONE if plain else how)
    prompt = Prompt(torch.randn(1, TOKENS[arguments.size], shape.joint_dim), torch.randn(1, shape.pooled_dim))
    if arguments.memory_gb is not None:
        torch.cuda.empty_cache()  # what making the base took: only now is it on the smaller card
        cap_memory(device, arguments.memory_gb * 1e9)
    return denoiser, prompt, torch.randn(2, shape.in_channels // 4, arguments.pixels // 8, arguments.pixels // 8)


def random_transformer(shape: FluxShape, device: torch.device, dtype: torch.dtype) -> Any:
    """Made in the precision that it runs in: 12 billion numbers in float32 fit on few cards."""
    from diffusers import FluxTransformer2DModel

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            network = FluxTransformer2DModel(**transformer_config(shape))
    finally:
        torch.set_default_dtype(before)
    return network.to(dtype).eval().requires_grad_(False)


def facts(arguments: argparse.Namespace) -> dict[str, object]:
    """What was measured, for the result's file."""
    device, dtype, speed = torch.device(arguments.device), PRECISIONS[arguments.precision], speed_of(arguments)
    return {
        "size": arguments.size,
        "pixels": arguments.pixels,
        "batch": arguments.batch,
        "precision": arguments.precision,
        "checkpointing": arguments.checkpointing,
        "run": str(speed),
        "attention": attention_that_runs(speed, device, dtype),
        "memory_gb": arguments.memory_gb,
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
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--checkpointing", choices=CHECKPOINTING, default="none")
    parser.add_argument("--memory-gb", type=float, metavar="GB", help="imitate a GPU of this size")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--out", type=Path, metavar="JSON")
    add_speed(parser)  # of our transformer alone
    return parser

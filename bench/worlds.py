"""What the benchmarks train: a frozen transformer with random weights, which do not change what a step costs."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from metalora.backbones.flux import FluxDenoiser
from metalora.backbones.flux_configs import scheduler_config, transformer_config
from metalora.backbones.keys import FluxShape
from metalora.backbones.protocol import Prompt

SIZES = {
    "miniature": FluxShape(256, 2, 4, 64, 128, 128, guidance=True),
    "flux-dev": FluxShape(3072, 19, 38, 64, 4096, 768, guidance=True),
}
TOKENS = {"miniature": 32, "flux-dev": 512}


def world(arguments: argparse.Namespace) -> tuple[FluxDenoiser, Prompt, Tensor]:
    """The transformer, a prompt, and one crop's latents with its mirror image."""
    from diffusers import FluxTransformer2DModel

    shape, dtype = SIZES[arguments.size], {"fp32": torch.float32, "bf16": torch.bfloat16}[arguments.precision]
    torch.manual_seed(0)
    with torch.device(arguments.device):
        network = FluxTransformer2DModel(**transformer_config(shape)).to(dtype).eval().requires_grad_(False)
    denoiser = FluxDenoiser(network, scheduler_config(shape), shape.guidance)
    denoiser.checkpointing(arguments.checkpointing)
    prompt = Prompt(torch.randn(1, TOKENS[arguments.size], shape.joint_dim), torch.randn(1, shape.pooled_dim))
    return denoiser, prompt, torch.randn(2, shape.in_channels // 4, arguments.pixels // 8, arguments.pixels // 8)


def options(description: str) -> argparse.ArgumentParser:
    """The flags that every benchmark of a training step has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="miniature")
    parser.add_argument("--pixels", type=int, default=128, help="of the crop's sides (default 128)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20, help="measured, after 3 of warm-up (default 20)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--out", type=Path, metavar="JSON")
    return parser

"""One training step of stage 2: ours against a plain PEFT LoRA loop on the same transformer, in one run.

    python -m bench.training_step                                  # the miniature's size, on the CPU
    python -m bench.training_step --size flux-dev --pixels 1024 --device cuda --precision bf16

Weights are random: they do not change what a step costs. Both loops train a rank-1 LoRA on the same layers from the
same latents; steps alternate, so that a machine that is busy for a while is busy for both; the ratio is of medians.
Peak memory is what a step allocates at its worst moment beyond the model, the adapters and the optimizer.
"""

import argparse
import sys

import torch

from metalora.backbones.keys import sites
from metalora.config import PersonalizeConfig
from metalora.method.adapter import new_adapters, random_meta_down
from metalora.method.flow import flow_loss
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize

from .measuring import Steps
from .reporting import Loops, reported
from .worlds import SIZES, TOKENS, options, world


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS), help="which to run (default both)")
    parser.add_argument(
        "--peak", type=float, metavar="TFLOP/S", help="what the machine's products reach: for the floor"
    )
    arguments = parser.parse_args()
    return reported(arguments, {name: LOOPS[name] for name in arguments.loops}, ratios)


def ratios(report: dict, arguments: argparse.Namespace) -> dict[str, float]:
    """Ours against PEFT's, and against the arithmetic."""
    seconds, peaks, work = report["seconds"], report["peak_mb"], tflop(arguments)
    found = {"tflop": work}
    if len(seconds) == 2:
        found |= {"time_ratio": seconds["ours"] / seconds["peft"], "memory_ratio": peaks["ours"] / peaks["peft"]}
    first = next(iter(seconds.values()))
    found["tflop_per_second"] = work / first
    if arguments.peak:
        found["times_the_floor"] = first / (work / arguments.peak)
    return found


def tflop(arguments: argparse.Namespace) -> float:
    """Of the products of a step, whose weights take no gradient: the arithmetic behind the floor."""
    shape, none = SIZES[arguments.size], arguments.checkpointing != "full"
    tokens = arguments.pixels**2 // 256 + TOKENS[arguments.size]
    blocks = shape.double_blocks + shape.single_blocks
    linear, attention = 24 * shape.width**2 * blocks * tokens, 4 * tokens**2 * shape.width * blocks  # forward
    return arguments.batch * ((2 if none else 3) * linear + (3.5 if none else 4.5) * attention) / 1e12


def ours(arguments: argparse.Namespace) -> Steps:
    """Meta-LoRA's own loop: heads on a frozen Meta-Down."""
    denoiser, prompt, latents = world(arguments)
    config = PersonalizeConfig(steps=100_000, batch=arguments.batch)
    chosen = sites(SIZES[arguments.size], "all", fused=False)
    meta_down = random_meta_down(chosen, config.meta_rank, torch.Generator().manual_seed(0))
    adapters = new_adapters(chosen, config.rank, torch.Generator().manual_seed(1), meta_down=meta_down)
    adapters.to(arguments.device)
    optimizer = new_optimizer(adapters, config)
    with adapters.attached(denoiser.network):
        yield from personalize(denoiser, adapters, optimizer, [Person(TrainingImages([latents], prompt), 0)], config)


def peft(arguments: argparse.Namespace) -> Steps:
    """What everybody writes: PEFT's LoRA of rank 1 on the same linear layers, AdamW, the same loss."""
    from peft import LoraConfig, inject_adapter_in_model

    denoiser, prompt, latents = world(arguments, plain=True)
    layers = sorted({site.module for site in sites(SIZES[arguments.size], "all", fused=False)})
    inject_adapter_in_model(LoraConfig(r=1, lora_alpha=1, target_modules=layers), denoiser.network)
    weights = [weight for weight in denoiser.network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=4e-4)
    batch = latents[:1].expand(arguments.batch, -1, -1, -1).to(arguments.device)
    for step in range(100_000):
        loss = flow_loss(denoiser, batch, prompt, torch.Generator().manual_seed(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()


LOOPS: Loops = {"ours": ours, "peft": peft}


if __name__ == "__main__":
    sys.exit(main())

"""One training step of stage 2: ours against a plain PEFT LoRA loop on the same transformer, in one run.

    python -m bench.training_step                                  # the miniature's size, on the CPU
    python -m bench.training_step --size flux-dev --pixels 1024 --device cuda --precision bf16

Weights are random: they do not change what a step costs. Both loops train a rank-1 LoRA on the same layers from the
same latents; steps alternate, so that a machine that is busy for a while is busy for both; the ratio is of medians.
Peak memory is what a step allocates at its worst moment beyond the model, the adapters and the optimizer.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from metalora.backbones.flux import FluxDenoiser
from metalora.backbones.flux_configs import scheduler_config, transformer_config
from metalora.backbones.keys import FluxShape, sites
from metalora.backbones.protocol import Prompt
from metalora.config import PersonalizeConfig
from metalora.method.adapter import new_adapters, random_meta_down
from metalora.method.flow import flow_loss
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize

SIZES = {
    "miniature": FluxShape(256, 2, 4, 64, 128, 128, guidance=True),
    "flux-dev": FluxShape(3072, 19, 38, 64, 4096, 768, guidance=True),
}
TOKENS = {"miniature": 32, "flux-dev": 512}
WARM_UP = 3
Steps = Iterator[Any]


def main() -> None:
    arguments = parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    seconds = alternating_times(arguments)
    peaks = {name: peak_memory(loop(arguments), arguments.device) for name, loop in LOOPS.items()}
    report = {
        "size": arguments.size,
        "pixels": arguments.pixels,
        "batch": arguments.batch,
        "precision": arguments.precision,
        "machine": machine(arguments.device),
        "steps": arguments.steps,
        "seconds": {name: median(found) for name, found in seconds.items()},
        "peak_mb": peaks,
    }
    report["time_ratio"] = report["seconds"]["ours"] / report["seconds"]["peft"]
    report["memory_ratio"] = peaks["ours"] / peaks["peft"]
    print(f"{'':6}{'s a step':>12}{'peak MB':>12}")
    for name in LOOPS:
        print(f"{name:6}{report['seconds'][name]:12.4f}{peaks[name]:12.1f}")
    print(f"ours / peft: time {report['time_ratio']:.3f}, memory {report['memory_ratio']:.3f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def alternating_times(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each step of both loops, after a warm-up."""
    loops = {name: loop(arguments) for name, loop in LOOPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for index in range(WARM_UP + arguments.steps):
        for name, steps in loops.items():
            began = time.perf_counter()
            next(steps)
            synchronize(arguments.device)
            if index >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return seconds


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

    denoiser, prompt, latents = world(arguments)
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


LOOPS: dict[str, Callable[[argparse.Namespace], Steps]] = {"ours": ours, "peft": peft}


def world(arguments: argparse.Namespace) -> tuple[FluxDenoiser, Prompt, Tensor]:
    """A frozen transformer with random weights, a prompt, and one crop's latents with its mirror image."""
    from diffusers import FluxTransformer2DModel

    shape, dtype = SIZES[arguments.size], {"fp32": torch.float32, "bf16": torch.bfloat16}[arguments.precision]
    torch.manual_seed(0)
    with torch.device(arguments.device):
        network = FluxTransformer2DModel(**transformer_config(shape)).to(dtype).eval().requires_grad_(False)
    denoiser = FluxDenoiser(network, scheduler_config(shape), shape.guidance)
    denoiser.checkpointing(arguments.checkpointing)
    prompt = Prompt(torch.randn(1, TOKENS[arguments.size], shape.joint_dim), torch.randn(1, shape.pooled_dim))
    return denoiser, prompt, torch.randn(2, shape.in_channels // 4, arguments.pixels // 8, arguments.pixels // 8)


def peak_memory(steps: Steps, device: str) -> float:
    """MB that one step, after the first, holds at its worst moment beyond what it found."""
    for _ in range(WARM_UP):
        next(steps)
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        next(steps)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        next(steps)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 1e6


def synchronize(device: str) -> None:
    """Wait until the GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def machine(device: str) -> str:
    """In words."""
    what = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    return f"{what}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=SIZES, default="miniature")
    options.add_argument("--pixels", type=int, default=128, help="of the crop's sides (default 128)")
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--steps", type=int, default=20, help="measured, after 3 of warm-up (default 20)")
    options.add_argument("--device", default="cpu")
    options.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options.add_argument("--checkpointing", action="store_true")
    options.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    options.add_argument("--out", type=Path, metavar="JSON")
    return options


if __name__ == "__main__":
    main()

"""Everything about a GPU that this package wants to know, in one run of under eight minutes:

    python -m bench.gpu                    # on CUDA: FLUX.1-dev, FLUX.2-klein-4B and Z-Image, at 512 and 1024 px
    python -m bench.gpu --device cpu       # the same script on small shapes, to see that it runs

Random weights of the real shapes, which cost what trained ones cost: a training step beside PEFT's loop, its peak
memory, and a short run from the making of the base to the last step. `bench.whole_job` times a job on real weights.
Each line is written when it is known, to gpu.json: what a run that is cut off had measured is kept.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from metalora.config import UserError

from . import training_step

REAL = ("klein-4b", "z-image", "flux-dev")  # the smallest first: what is cut off is the largest
SMALL = ("small-klein", "small-z-image", "miniature")
LIMIT = 480.0  # seconds


def arguments_of(size: str, pixels: int, device: str, steps: int) -> argparse.Namespace:
    """As the command line of `bench.training_step` gives them."""
    precision = "bf16" if device.startswith("cuda") else "fp32"
    words = ["--size", size, "--pixels", str(pixels), "--device", device, "--precision", precision]
    return training_step.options().parse_args([*words, "--steps", str(steps), "--checkpointing", "selective"])


def step_beside_peft(size: str, pixels: int, device: str, steps: int) -> dict[str, Any]:
    """Seconds and peak memory of both loops; of one alone where both bases do not fit beside each other."""
    arguments = arguments_of(size, pixels, device, steps)
    found: dict[str, Any] = {}
    for loop in training_step.LOOPS:
        if loop == "stage-1":
            continue
        arguments.loops = [loop]
        try:
            measured = training_step.measured(arguments)
            found[loop] = {"seconds": measured["seconds"][loop], "peak_mb": measured["peak_mb"][loop]}
        except torch.OutOfMemoryError:
            found[loop] = "out of memory"
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    return found


def run_of_steps(size: str, pixels: int, device: str, steps: int) -> dict[str, float]:
    """Seconds from nothing to a base on the device and so many trained steps, and what was held at the worst moment."""
    arguments = arguments_of(size, pixels, device, steps)
    began = time.perf_counter()
    losses = training_step.ours(arguments)
    for _ in range(steps):
        next(losses)
    found: dict[str, float] = {"steps": steps}
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        found["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found | {"seconds": time.perf_counter() - began}


def main(given: list[str] | None = None) -> int:
    """Write what was measured, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    arguments = parser.parse_args(given)
    on_gpu = arguments.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise UserError("No CUDA GPU is here; `--device cpu` runs the same script on small shapes.")
    began, lines = time.perf_counter(), []
    machine = torch.cuda.get_device_name() if on_gpu else "CPU"
    jobs = [(size, pixels) for size in (REAL if on_gpu else SMALL) for pixels in ((512, 1024) if on_gpu else (64,))]
    for size, pixels in jobs:
        if time.perf_counter() - began > LIMIT * 0.8:
            print(f"left out {size} at {pixels} px: the time is over")
            continue
        line = {"machine": machine, "size": size, "pixels": pixels}
        line |= step_beside_peft(size, pixels, arguments.device, 5 if on_gpu else 1)
        line["run"] = run_of_steps(size, pixels, arguments.device, 20 if on_gpu else 2)
        lines.append(line)
        arguments.out.write_text(json.dumps(lines, indent=2) + "\n")
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

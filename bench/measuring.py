"""Timing and memory of training steps: loops of one run take turns, so that ratios survive a busy machine."""

import platform
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch

WARM_UP = 3
Steps = Iterator[Any]


def alternating_times(loops: dict[str, Steps], count: int, device: str) -> dict[str, float]:
    """Median seconds of `count` steps of each loop, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for index in range(WARM_UP + count):
        for name, steps in loops.items():
            began = time.perf_counter()
            next(steps)
            synchronize(device)
            if index >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return {name: median(found) for name, found in seconds.items()}


def peak_memory(steps: Steps, device: str) -> float:
    """MB that one step holds at its worst moment beyond what it found; the loop must be warm."""
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

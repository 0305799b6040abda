"""What every benchmark of a training step reports, and how: a table to read, a JSON file to keep.

Running out of memory is a result, and so is a refusal: both are written, with an exit status of their own.
"""

import argparse
import json
from collections.abc import Callable

import torch

from metalora.config import UserError

from .measuring import Steps, alternating_times, peak_memory
from .worlds import facts

OUT_OF_MEMORY, REFUSED = 3, 4  # exit status
Loops = dict[str, Callable[[argparse.Namespace], Steps]]


def reported(arguments: argparse.Namespace, loops: Loops, derived: Callable[[dict, argparse.Namespace], dict]) -> int:
    """Measure a step of each loop; `derived` makes further figures of `seconds` and the rest. The exit status."""

    def measure(given: argparse.Namespace) -> dict:
        report = measured(given, loops)
        return report | derived(report, given)

    return written(arguments, measure, table)


def written(
    arguments: argparse.Namespace, measure: Callable[[argparse.Namespace], dict], shown: Callable[[dict], str]
) -> int:
    """Measure, print and write. The exit status."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    status, report = 0, {}
    try:
        report = facts(arguments) | measure(arguments)
        print(shown(report))
    except torch.OutOfMemoryError as error:
        status, report = OUT_OF_MEMORY, facts(arguments) | {"out_of_memory": str(error).splitlines()[0]}
        print(f"out of memory: {report['out_of_memory']}")
    except UserError as error:
        status, report = REFUSED, {"refused": str(error)}
        print(f"refused: {error}")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    return status


def measured(arguments: argparse.Namespace, loops: Loops) -> dict:
    """Seconds and peak memory of a step of each loop; they take turns in one run."""
    running = {name: loop(arguments) for name, loop in loops.items()}
    seconds = alternating_times(running, arguments.steps, arguments.device)
    report = {
        "seconds": seconds,
        "peak_mb": {name: peak_memory(steps, arguments.device) for name, steps in running.items()},
    }
    if arguments.device.startswith("cuda"):
        report["whole_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6  # weights too, of every loop
    return report


def table(report: dict) -> str:
    """For a terminal."""
    lines = [f"{'':12}{'s a step':>12}{'peak MB':>12}"]
    lines += [f"{name:12}{seconds:12.4f}{report['peak_mb'][name]:12.1f}" for name, seconds in report["seconds"].items()]
    shown = ("time_ratio", "memory_ratio", "tflop_per_second", "times_the_floor", "mixed_to_one_person")
    shown += ("mixed_to_separate", "base_to_separate")
    lines += [f"{name.replace('_', ' ')}: {report[name]:.3f}" for name in shown if name in report]
    return "\n".join([*lines, f"attention: {report['attention']}; {report['run']}"])

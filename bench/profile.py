"""Where the time of `metalora demo` and of a small mini benchmark goes: seconds and the processor's, phase by phase.

    python -m bench.profile demo --out demo.txt            # what `make demo` does, on an empty cache
    python -m bench.profile benchmark --out benchmark.txt  # two people, two prompts, all four methods

The processor's seconds are those of this process, all of its threads; they hardly change on a busy machine.
"""

import argparse
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from metalora.backbones.flux import FluxBackbone
from metalora.backbones.load import load_backbone
from metalora.config import BenchmarkConfig, CropConfig, GenerateConfig, PersonalizeConfig
from metalora.jobs import Job
from metalora.jobs.benchmark.prepare import Inputs, make_plan, mini_benchmark
from metalora.jobs.benchmark.run import run_benchmark
from metalora.jobs.benchmark.units import Share
from metalora.jobs.demo import demonstrate
from metalora.jobs.demo.people import demo_people
from metalora.presets import with_preset
from metalora.store.cache import Cache

from .measuring import machine
from .phases import Times, summed, timed


def main() -> None:
    arguments = parsed()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        backbone = load_backbone(arguments.backbone, device=arguments.device)
        job = JOBS[arguments.what](backbone, Path(folder), arguments.backbone)
        times = timed(job, "the beginning", "after {}", arguments.device, kind_of)
    text = table(times, f"{arguments.what} on {arguments.backbone}; {machine(arguments.device)}")
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def demo(backbone: FluxBackbone, folder: Path, preset: str) -> Job:
    """As the command makes it, but with nothing cached from before."""
    return demonstrate(backbone, folder / "demo", Cache(folder / "cache"), preset, demo_people(preset))


def benchmark(backbone: FluxBackbone, folder: Path, preset: str) -> Job:
    """Few people and prompts of the mini benchmark, the rest as the command has it."""
    mini = mini_benchmark()
    flags = {"backbone": preset, "precision": "auto"}
    inputs = Inputs(mini / "manifest.jsonl", mini / "prompts.json", {"": "random"}, flags, "sface", "miniature")
    config = with_preset(BenchmarkConfig, preset, people=2, prompts_each=2)
    training = with_preset(PersonalizeConfig, preset)
    crops, sampling = with_preset(CropConfig, preset), with_preset(GenerateConfig, preset)
    yield from make_plan(folder / "run", backbone, inputs, config, training, crops, sampling)
    yield from run_benchmark(folder / "run", backbone, Cache(folder / "cache"), Share())


JOBS: dict[str, Callable[[FluxBackbone, Path, str], Job]] = {"demo": demo, "benchmark": benchmark}


def kind_of(text: str) -> str:
    """A phase without its numbers and names, so that like ones add up."""
    if found := re.search(r"images of ([a-z-]+)|: ([a-z-]+), rank", text):
        return f"images of {found[1].rstrip('-')}" if found[1] else f"training {found[2]}"
    if text.startswith("personalizing"):
        return text.split(",")[0]
    return re.sub(r"\s*\d+( of \d+)?", "", text.split(":")[0].split(";")[0]).strip()


def table(times: Times, title: str) -> str:
    """The longest first, by the processor."""
    seconds, worked = summed(times)
    lines = [title, f"{'phase':56}{'processor s':>12}{'share':>9}{'seconds':>10}"]
    for name, (clock, own) in sorted(times.items(), key=lambda item: -item[1][1]):
        lines.append(f"{name[:55]:56}{own:12.2f}{100 * own / worked:8.1f} %{clock:10.2f}")
    return "\n".join([*lines, f"{'all':56}{worked:12.2f}{100:8.1f} %{seconds:10.2f}"])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=JOBS)
    parser.add_argument("--backbone", default="miniature", help="miniature (the default) or tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--out", type=Path, metavar="TXT")
    return parser.parse_args()


if __name__ == "__main__":
    main()

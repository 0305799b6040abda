"""One training step on random weights, which do not change what a step costs: ours, PEFT's and stage 1's, in turns.

    python -m bench.training_step                                  # the miniature's size, on the CPU
    python -m bench.training_step --size flux-dev --pixels 1024 --device cuda --precision bf16
    python -m bench.training_step --loops stage-1 --batch 4        # a batch of four people, with a moving Meta-Down

`ours` and `peft` train a rank-1 LoRA on the same layers from the same latents; steps take turns in one run, so that a
machine that is busy for a while is busy for both, and the ratio is of medians. Peak memory is what a step allocates at
its worst moment beyond the model, the adapters and the optimizer. Running out of memory is a result, and so is a
refusal: both are written, with an exit status of their own.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from metalora.backbones.architecture import Architecture
from metalora.backbones.bases import BASES, klein
from metalora.backbones.families import Flux2Klein, ZImage
from metalora.backbones.families.flux import FLUX, FluxShape, transformer_config
from metalora.backbones.family import Family, PipelineDenoiser, diffusers_class
from metalora.backbones.pipeline import Speed, attention_that_runs, run_as
from metalora.backbones.pipeline_folder import PipelineFolder
from metalora.backbones.protocol import Prompt
from metalora.backbones.speed import Checkpointing
from metalora.cli import add_options
from metalora.config import PersonalizeConfig, SpeedConfig, UserError
from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs.fitting import operations
from metalora.jobs.memory import cap_memory
from metalora.method.adapter import new_adapters, random_meta_down
from metalora.method.buckets import Person as StageOnePerson
from metalora.method.buckets import Sample
from metalora.method.flow import flow_loss
from metalora.method.meta_train import Batch, MetaTraining, meta_train
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize
from metalora.settings import config_of


@dataclass(frozen=True)
class Size:
    """A transformer to be filled with random numbers: its family, its settings, and the shapes of a prompt's parts."""

    family: Family
    config: Mapping[str, Any]
    text: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> Architecture:
        """Its name and its layers."""
        return self.family.architecture(self.config)


def of_base(name: str, **text: tuple[int, ...]) -> Size:
    """The real size of a base that has a name."""
    parts = PipelineFolder(BASES[name].hub)
    return Size(parts.family, parts.transformer_config, text)


SMALL_FLUX = FluxShape(256, 2, 4, 64, 128, 128, guidance=True)
SMALL_Z_IMAGE = {"dim": 256, "n_layers": 4, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 64}
SIZES = {
    "miniature": Size(FLUX, transformer_config(SMALL_FLUX), {"tokens": (32, 128), "pooled": (128,)}),
    "small-klein": Size(Flux2Klein(), klein(1, 2, 2, 128), {"tokens": (64, 128)}),
    "small-z-image": Size(ZImage(), SMALL_Z_IMAGE, {"tokens": (32, 64)}),
    "flux-dev": of_base("flux-dev", tokens=(512, 4096), pooled=(768,)),
    "klein-4b": of_base("klein-4b", tokens=(512, 7680)),
    "z-image": of_base("z-image", tokens=(32, 2560)),
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CHECKPOINTING = {how.name.lower(): how for how in Checkpointing}
WARM_UP, FOREVER = 3, 1_000_000
OUT_OF_MEMORY, REFUSED = 3, 4  # exit status

Steps = Iterator[Any]


def ours(arguments: argparse.Namespace) -> Steps:
    """Meta-LoRA's own loop: heads on a frozen Meta-Down."""
    denoiser, prompt, latents = frozen_base(arguments)
    config = PersonalizeConfig(steps=100_000, batch=arguments.batch)
    chosen = SIZES[arguments.size].architecture.sites("all")
    meta_down = random_meta_down(chosen, config.meta_rank, torch.Generator().manual_seed(0))
    adapters = new_adapters(chosen, config.rank, torch.Generator().manual_seed(1), meta_down=meta_down)
    adapters.to(arguments.device)
    optimizer = new_optimizer(adapters, config)
    with adapters.attached(denoiser.network):
        yield from personalize(denoiser, adapters, optimizer, [Person(TrainingImages([latents], prompt), 0)], config)


def peft(arguments: argparse.Namespace) -> Steps:
    """What everybody writes: PEFT's LoRA of rank 1 on the same linear layers, AdamW, the same loss."""
    from peft import LoraConfig, inject_adapter_in_model

    denoiser, prompt, latents = frozen_base(arguments, plain=True)
    layers = sorted({site.module for site in SIZES[arguments.size].architecture.places})
    inject_adapter_in_model(LoraConfig(r=1, lora_alpha=1, target_modules=layers), denoiser.network)
    weights = [weight for weight in denoiser.network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=4e-4)
    batch = latents[:1].expand(arguments.batch, -1, -1, -1).to(arguments.device)
    for step in range(FOREVER):
        loss = flow_loss(denoiser, batch, prompt, torch.Generator().manual_seed(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield loss.item()


def stage_one(arguments: argparse.Namespace) -> Steps:
    """A batch of as many people as it has photos: forward, backward and both optimizers, with the Meta-Down moving."""
    denoiser, prompt, latents = frozen_base(arguments)
    config = MetaTrainConfig(steps=FOREVER, bucket_steps=FOREVER, warmup_steps=0, batch=arguments.batch)
    chosen = SIZES[arguments.size].architecture.sites(config.sites)
    meta_down = random_meta_down(chosen, config.meta_rank, torch.Generator().manual_seed(0))
    size = (arguments.pixels, arguments.pixels)
    people = [StageOnePerson(str(number), "person", (size,)) for number in range(arguments.batch)]
    training = MetaTraining(chosen, meta_down, [people], config, arguments.device)
    samples = [Sample(slot, slot, 0, False) for slot in range(arguments.batch)]
    expanded = Prompt({name: part.expand(arguments.batch, *part.shape[1:]) for name, part in prompt.items()})
    clean = latents[:1].expand(arguments.batch, -1, -1, -1).to(arguments.device)
    batches = (Batch(step, samples, clean, expanded) for step in range(config.steps))
    with training.adapters.attached(denoiser.network):
        yield from meta_train(denoiser, training, batches, config)


LOOPS: dict[str, Callable[[argparse.Namespace], Steps]] = {"ours": ours, "peft": peft, "stage-1": stage_one}


def frozen_base(arguments: argparse.Namespace, plain: bool = False) -> tuple[PipelineDenoiser, Prompt, Tensor]:
    """The transformer, a prompt, and one crop's latents with its mirror image.

    A plain one has none of our ways to run it: whole blocks are computed again, if anything is.
    """
    size, device = SIZES[arguments.size], torch.device(arguments.device)
    torch.manual_seed(0)
    network = random_transformer(size, device, PRECISIONS[arguments.precision])
    how, speed = CHECKPOINTING[arguments.checkpointing], Speed.of(config_of(SpeedConfig, vars(arguments)))
    speed.check(device)
    if not plain:
        network = run_as(network, speed, device)
    denoiser = PipelineDenoiser(size.family, network, {}, {})
    denoiser.checkpointing(how != Checkpointing.NONE if plain else how)
    prompt = Prompt({name: torch.randn(1, *shape) for name, shape in size.text.items()})
    if arguments.memory_gb is not None:
        torch.cuda.empty_cache()  # what making the base took: only now is it on the smaller card
        cap_memory(device, arguments.memory_gb * 1e9)
    shape = size.family.latent_shape(network.config, arguments.pixels, arguments.pixels)
    return denoiser, prompt, torch.randn(2, *shape)


def random_transformer(size: Size, device: torch.device, dtype: torch.dtype) -> Any:
    """Made in the precision that it runs in: 12 billion numbers in float32 fit on few cards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            network = diffusers_class(size.family, size.family.transformer)(**size.config)
    finally:
        torch.set_default_dtype(before)
    return torch.nn.Module.to(network, dtype).eval().requires_grad_(False)  # diffusers' own `to` warns of no layer


def alternating_times(loops: dict[str, Steps], count: int, device: str) -> dict[str, float]:
    """Median seconds of `count` steps of each loop, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for index in range(WARM_UP + count):
        for name, steps in loops.items():
            began = time.perf_counter()
            next(steps)
            if device.startswith("cuda"):
                torch.cuda.synchronize()
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


def tflop(arguments: argparse.Namespace) -> float:
    """Of the products of a step, whose weights take no gradient: the arithmetic behind the floor."""
    size, none = SIZES[arguments.size], arguments.checkpointing != "full"
    tokens = arguments.pixels**2 // 256 + size.text["tokens"][0]
    linear, attention = operations(size.architecture, tokens, arguments.batch)  # of a forward pass
    return ((2 if none else 3) * linear + (3.5 if none else 4.5) * attention) / 1e12


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of a step of each loop, ours against PEFT's, and against the arithmetic."""
    running = {name: LOOPS[name](arguments) for name in arguments.loops}
    seconds = alternating_times(running, arguments.steps, arguments.device)
    peaks = {name: peak_memory(steps, arguments.device) for name, steps in running.items()}
    work, first = tflop(arguments), next(iter(seconds.values()))
    report = {"seconds": seconds, "peak_mb": peaks, "tflop": work, "tflop_per_second": work / first}
    if {"ours", "peft"} <= set(seconds):
        report |= {"time_ratio": seconds["ours"] / seconds["peft"], "memory_ratio": peaks["ours"] / peaks["peft"]}
    if arguments.peak:
        report["times_the_floor"] = first / (work / arguments.peak)
    if arguments.device.startswith("cuda"):
        report["whole_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6  # weights too, of every loop
    return report


def table(report: dict[str, Any]) -> str:
    """For a terminal."""
    lines = [f"{'':12}{'s a step':>12}{'peak MB':>12}"]
    lines += [f"{name:12}{seconds:12.4f}{report['peak_mb'][name]:12.1f}" for name, seconds in report["seconds"].items()]
    shown = ("time_ratio", "memory_ratio", "tflop_per_second", "times_the_floor")
    lines += [f"{name.replace('_', ' ')}: {report[name]:.3f}" for name in shown if name in report]
    return "\n".join([*lines, f"attention: {report['attention']}; {report['run']}"])


def settings(arguments: argparse.Namespace) -> dict[str, object]:
    """What was measured, for the result's file."""
    device, dtype, speed = (
        torch.device(arguments.device),
        PRECISIONS[arguments.precision],
        Speed.of(config_of(SpeedConfig, vars(arguments))),
    )
    kept = ("size", "pixels", "batch", "precision", "checkpointing", "memory_gb", "steps")
    processor = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return {name: getattr(arguments, name) for name in kept} | {
        "run": str(speed),
        "attention": attention_that_runs(speed, device, dtype),
        "machine": f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def main(given: list[str] | None = None, measure: Callable[[argparse.Namespace], dict[str, Any]] = measured) -> int:
    """Measure, print and write. The exit status."""
    arguments = options().parse_args(given)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    status, report = 0, {}
    try:
        report = settings(arguments) | measure(arguments)
        print(table(report))
    except torch.OutOfMemoryError as error:
        status, report = OUT_OF_MEMORY, settings(arguments) | {"out_of_memory": str(error).splitlines()[0]}
        print(f"out of memory: {report['out_of_memory']}")
    except UserError as error:
        status, report = REFUSED, {"refused": str(error)}
        print(f"refused: {error}")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    return status


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=["ours", "peft"], help="(default ours peft)")
    parser.add_argument("--size", choices=SIZES, default="miniature")
    parser.add_argument("--pixels", type=int, default=128, help="of the crop's sides (default 128)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20, help="measured, after 3 of warm-up (default 20)")
    parser.add_argument("--peak", type=float, metavar="TFLOP/S", help="what the machine's products reach: the floor")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--checkpointing", choices=CHECKPOINTING, default="none")
    parser.add_argument("--memory-gb", type=float, metavar="GB", help="imitate a GPU of this size")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--out", type=Path, metavar="JSON")
    add_options(parser, SpeedConfig)  # of our transformer alone
    return parser


if __name__ == "__main__":
    sys.exit(main())

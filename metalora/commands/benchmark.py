"""The benchmark: one plan, the same people, prompts and noise for every method, scores with intervals."""

import argparse
import importlib.util
import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from ..config import METHODS, BenchmarkConfig, CropConfig, GenerateConfig, PersonalizeConfig, UserError
from ..flags import add_options, config_from
from ..presets import method_preset
from . import benchmark_report
from .base_model import (
    DEFAULT_BACKBONE,
    SINGLE_FILES,
    add_backbone,
    add_speed,
    backbone_of,
    cache_of,
    fast_backbone_of,
    preset_of,
    single_files_of,
)
from .choices import add_dino, add_faces
from .parsers import Commands
from .running import driven

if TYPE_CHECKING:
    from ..backbones.flux import FluxBackbone
    from ..jobs.benchmark.plan import Plan

BENCHMARK_HELP = """\
How like the people are the images of each method, and do they show what was asked? On the mini benchmark that ships
(16 rendered people), or on photos of your own with a manifest.

  metalora benchmark plan my-run --meta-down random
  metalora benchmark run my-run
  metalora benchmark report my-run
"""

PLAN_HELP = """\
Check every input and write my-run/plan.json: people, prompts, seeds, methods, settings, and the hashes of all files.

  metalora benchmark plan my-run --meta-down woman=woman.safetensors man=man.safetensors
  metalora benchmark plan quick --methods none lora --people 2 --prompts-each 2
  metalora benchmark plan paper --manifest photos/manifest.jsonl --meta-phd --leave-out age --backbone flux-dev

Images made elsewhere go to my-run/external/<method>/<identity>/<prompt id>-<seed>.png: see external/wanted.jsonl.
"""

RUN_HELP = """\
Do what the plan says and write my-run/results.json. Stopped at any point, the same command goes on. On several cores,
on several GPUs, or on machines that share the folder:

  torchrun --nproc-per-node 2 -m metalora.cli benchmark run my-run
"""


def add_to(commands: Commands) -> None:
    """Plan and run; report and compare are in a file of their own."""
    kinds = commands.family("benchmark", "compare methods, with intervals", BENCHMARK_HELP)
    plan = kinds.add("plan", "check every input, decide everything", PLAN_HELP, plan_benchmark)
    plan.add_argument("run", type=Path, help="a new folder for the run")
    plan.add_argument("--manifest", type=Path, metavar="FILE", help="photos as JSONL (default: the mini benchmark's)")
    plan.add_argument("--prompts", type=Path, metavar="FILE", help="prompts as JSON (default: the mini benchmark's)")
    plan.add_argument("--meta-phd", action="store_true", help="the prompts of the paper's benchmark, which ship")
    plan.add_argument(
        "--meta-down",
        nargs="+",
        default=[],
        metavar="FILE",
        help="CLASS=FILE for each class, FILE for all, or random (default: the shipped ones, where there are some)",
    )
    add_options(plan, BenchmarkConfig, "the comparison")
    add_options(plan, PersonalizeConfig, "training", ("method", "steps", "rank", "class_name"))
    plan.add_argument(
        "--captions",
        choices=("class", "photo"),
        default="class",
        help="what training captions say: class, as in the paper; photo: also the photo's own clothes and background, "
        "or whatever the prompts file has alternatives to, so that these are not learned as the person's",
    )
    add_options(plan, CropConfig, "crops", ("learn_from",))
    add_options(plan, GenerateConfig, "sampling", ("seed", "images_per_prompt"))
    plan.add_argument(
        "--clip",
        metavar="NAME",
        help="who scores prompts: miniature, openai, a folder or file, none (default: the miniature's own for tiny and "
        "miniature, else openai; none where open_clip is not installed)",
    )
    add_dino(plan)
    add_faces(plan)
    add_backbone(plan)
    add_speed(plan)

    run = kinds.add("run", "personalize, make images, score; goes on where it stopped", RUN_HELP, run_benchmark)
    run.add_argument("run", type=Path, help="the folder of a plan")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    run.add_argument("--cache", type=Path, metavar="FOLDER", help="for latents and prompts (default: METALORA_CACHE)")
    benchmark_report.add_to(kinds)


def plan_benchmark(args: argparse.Namespace) -> None:
    """Check every input and write the plan."""
    from ..jobs.benchmark.prepare import Inputs, make_plan, meta_phd_prompts, mini_benchmark

    if args.meta_phd and args.prompts:
        raise UserError("--meta-phd and --prompts name two files of prompts: leave one out.")
    if args.cuda_graphs:
        raise UserError("--cuda-graphs are recorded for one person, and a benchmark trains many people. Leave it out.")
    prompts = meta_phd_prompts() if args.meta_phd else args.prompts or mini_benchmark() / "prompts.json"
    manifest = args.manifest or mini_benchmark() / "manifest.jsonl"
    inputs = Inputs(
        manifest,
        prompts,
        meta_downs_of(args.meta_down),
        flags_of_base(args),
        args.faces,
        clip_of(args),
        args.dino,
        described=args.captions == "photo",
    )
    preset = preset_of(args)
    if "learning_rate" not in args and "own_learning_rates" not in args:
        rates = ((method, method_preset(preset, method).get("learning_rate")) for method in trained_methods(args))
        args.own_learning_rates = [f"{method}={rate}" for method, rate in rates if rate]
    plan = driven(
        make_plan(
            args.run,
            fast_backbone_of(args),
            inputs,
            config_from(args, BenchmarkConfig, preset),
            config_from(args, PersonalizeConfig, preset),
            config_from(args, CropConfig, preset),
            config_from(args, GenerateConfig, preset),
        )
    )
    images = sum(len(plan.prompts_of(person)) for person in plan.people) * len(plan.seeds)
    print(f"{len(plan.people)} people, {images} images of each of {len(plan.variants())} variants")
    print(f"wrote {args.run / 'plan.json'}")
    print(f"next:  metalora benchmark run {quote(str(args.run))}")


def trained_methods(args: argparse.Namespace) -> list[str]:
    """The methods of the plan that train."""
    return [method for method in getattr(args, "methods", METHODS) if method in METHODS]


def run_benchmark(args: argparse.Namespace) -> None:
    """Do what the plan says."""
    import torch

    from ..jobs import run
    from ..jobs.benchmark.plan import read_plan
    from ..jobs.benchmark.run import run_benchmark as job
    from ..jobs.benchmark.units import share_from_environment

    share, plan = share_from_environment(), read_plan(args.run)
    torch.set_num_threads(plan.threads)
    work = job(args.run, planned_backbone(plan, args.device), cache_of(args), share)
    results = driven(work) if share.rank == 0 else run(work)  # one process shows its progress
    if results is not None:
        print(f"wrote {results}")
        print(f"next:  metalora benchmark report {quote(str(args.run))}")


def meta_downs_of(given: list[str]) -> dict[str, str]:
    """CLASS=FILE, or one FILE for every class."""
    from ..jobs.benchmark.prepare import ANY_CLASS

    found: dict[str, str] = {}
    for text in given:
        class_name, _, path = text.rpartition("=") if "=" in text else (ANY_CLASS, "", text)
        if class_name in found:
            raise UserError(
                f"--meta-down names two files for {class_name or 'every class'}: {found[class_name]}, {path}."
            )
        found[class_name] = path
    return found


def clip_of(args: argparse.Namespace) -> str | None:
    """Which CLIP; a default that is not installed is left out, one that was asked for is an error later."""
    if args.clip is None and importlib.util.find_spec("open_clip") is None:
        return None
    small = preset_of(args) in ("tiny", "miniature")
    name = args.clip or ("miniature" if small else "openai")
    return None if name == "none" else name


def flags_of_base(args: argparse.Namespace) -> dict[str, str]:
    """What names the base, to be found again by `run`; a default too, since another version may have another one."""
    given = {name: str(path.absolute()) for name, path in single_files_of(args).items()}
    return {**(given or {"backbone": args.backbone or DEFAULT_BACKBONE}), "precision": args.precision}


def planned_backbone(plan: "Plan", device: str) -> "FluxBackbone":
    """The base of the plan, run as the plan says, on this process's device."""
    from ..backbones.speed import Speed

    local_rank = os.environ.get("LOCAL_RANK")
    if device == "auto" and local_rank is not None:
        import torch

        device = f"cuda:{local_rank}" if torch.cuda.is_available() else device
    flags = plan.backbone_flags
    files = {name: Path(flags[name]) if name in flags else None for name in SINGLE_FILES}
    named = argparse.Namespace(backbone=flags.get("backbone"), precision=flags["precision"], device=device, **files)
    backbone = backbone_of(named)
    backbone.speed = Speed(**plan.speed)
    return backbone

"""The benchmark: one plan, the same people, prompts and noise for every method, scores with intervals."""

import argparse
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from ..api import keep
from ..cli import Commands, add_settings, settings_of
from ..config import (
    DEFAULT_BACKBONE,
    METHODS,
    BaseConfig,
    CropConfig,
    GenerateConfig,
    PersonalizeConfig,
    SpeedConfig,
    UserError,
    check_options,
    option,
)
from ..config_benchmark import BenchmarkConfig
from ..jobs import driven
from ..settings import FACES, config_of, method_preset

if TYPE_CHECKING:
    from ..backbones.pipeline import PipelineBackbone
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

REPORT_HELP = """\
One page that opens in any browser without a network: scores with intervals, charts, people with their images, best and
worst. Beside it two tables for a spreadsheet: images.csv and variants.csv.

  metalora benchmark report my-run
"""

FRONTIER_HELP = """\
Steps, rates and ranks buy likeness with prompts. So two methods are compared at equal CLIP-T and at equal R-FaceSim:
every setting of the given runs against the curve through the settings of --curve (those that no other of them beats in
both), paired by person, with intervals.

  metalora benchmark frontier meta-lora --curve plain-lora
  metalora benchmark frontier meta-lora --curve plain-lora plain-lora-rank-4 --plot frontier.png
"""

# Settings of one training or image that a plan has several of, under names of its own.
OF_VARIANTS = ("method", "steps", "rank", "class_name", "images_per_prompt")


@dataclass(frozen=True, kw_only=True)
class PlanSettings(BenchmarkConfig, PersonalizeConfig, CropConfig, GenerateConfig, BaseConfig, SpeedConfig):
    """What is planned, but for what the plan itself decides."""

    manifest: Path | None = option(None, "photos as JSONL (default: the mini benchmark's)", common=True)
    prompts: Path | None = option(None, "prompts as JSON (default: the mini benchmark's)", common=True)
    meta_phd: bool = option(False, "the prompts of the paper's benchmark, which ship")
    meta_down: tuple[str, ...] = option(
        (),
        "CLASS=FILE for each class, FILE for all, or random (default: the shipped ones, where there are some)",
        common=True,
    )
    clip: str | None = option(
        None,
        "who scores prompts: miniature, openai, a folder or file, none (default: the miniature's own for tiny and "
        "miniature, else openai; none where open_clip is not installed)",
    )
    faces: str = option("sface", FACES)
    draw_with: str | None = option(
        None, "make the images with another base of the same architecture: krea-2-turbo, ..."
    )

    def __post_init__(self) -> None:
        check_options(self)


def add_to(commands: Commands) -> None:
    """Plan, run, look."""
    kinds = commands.family("benchmark", "compare methods, with intervals", BENCHMARK_HELP)
    plan = kinds.add("plan", "check every input, decide everything", PLAN_HELP, plan_benchmark)
    plan.add_argument("run", type=Path, help="a new folder for the run")
    add_settings(plan, PlanSettings, OF_VARIANTS)

    run = kinds.add("run", "personalize, make images, score; goes on where it stopped", RUN_HELP, run_benchmark)
    run.add_argument("run", type=Path, help="the folder of a plan")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    run.add_argument("--cache", type=Path, metavar="FOLDER", help="for latents and prompts (default: METALORA_CACHE)")

    report = kinds.add("report", "a page and two tables of a finished run", REPORT_HELP, report_benchmark)
    report.add_argument("run", type=Path, help="the folder of a finished run, or its results.json")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the run's folder)")
    curve = kinds.add("frontier", "one method against another's curve", FRONTIER_HELP, compare_on_frontier)
    curve.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs of one method")
    curve.add_argument("--curve", type=Path, nargs="+", required=True, metavar="RUN", help="runs of the other method")
    curve.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="only people whose names hold one of these"
    )
    curve.add_argument("--plot", type=Path, metavar="PNG", help="draw both curves")


def plan_benchmark(args: argparse.Namespace) -> None:
    """Check every input and write the plan."""
    from ..backbones.pipeline import how_it_runs, open_backbone
    from ..jobs.benchmark.prepare import Inputs, make_plan, meta_phd_prompts, mini_benchmark

    given = settings_of(args, PlanSettings, without=OF_VARIANTS)
    own = PlanSettings(**given)
    if own.meta_phd and own.prompts:
        raise UserError("--meta-phd and --prompts name two files of prompts: leave one out.")
    preset, rates = own.defaults_of, {}
    if "learning_rate" not in given:
        presets = {method: method_preset(preset, method) for method in own.methods if method in METHODS}
        rates = {method: float(own["learning_rate"]) for method, own in presets.items() if "learning_rate" in own}
    drawn = BaseConfig(backbone=own.draw_with, device=own.device, precision=own.precision)
    inputs = Inputs(
        own.manifest or mini_benchmark() / "manifest.jsonl",
        meta_phd_prompts() if own.meta_phd else own.prompts or mini_benchmark() / "prompts.json",
        meta_downs_of(own.meta_down),
        words_of_base(own, args.run),
        own.faces,
        clip_of(own),
        rates,
        words_of_base(drawn, args.run) if own.draw_with else {},
    )
    backbone = open_backbone(own, own)
    print(how_it_runs(backbone))
    job = make_plan(
        args.run,
        backbone,
        inputs,
        config_of(BenchmarkConfig, given, preset),
        config_of(PersonalizeConfig, given, preset),
        config_of(CropConfig, given, preset),
        config_of(GenerateConfig, given, own.draw_with or preset),
        open_backbone(drawn, own) if own.draw_with else None,
    )
    plan = driven(job)
    keep(args.run / "settings.toml", "benchmark plan", given)
    images = sum(len(plan.prompts_of(person)) for person in plan.people) * len(plan.seeds)
    print(f"{len(plan.people)} people, {images} images of each of {len(plan.variants())} variants")
    print(f"wrote {args.run / 'plan.json'}")
    print(f"next:  metalora benchmark run {quote(str(args.run))}")


def run_benchmark(args: argparse.Namespace) -> None:
    """Do what the plan says."""
    import torch

    from ..jobs.benchmark.plan_file import read_plan
    from ..jobs.benchmark.run import run_benchmark as job
    from ..jobs.benchmark.shares import share_from_environment
    from ..store.cache import Cache, default_folder
    from ..store.report.results import read_results
    from ..store.report.scores import CLIP_T, R_FACESIM, number

    share, plan = share_from_environment(), read_plan(args.run)
    torch.set_num_threads(plan.threads)
    backbone = planned_backbone(plan, plan.backbone_flags, args.run, args.device)
    draws = plan.drawn_with_flags and planned_backbone(plan, plan.drawn_with_flags, args.run, args.device)
    work = job(args.run, backbone, Cache(args.cache or default_folder()), share, draws or None)
    results = driven(work, quiet=share.rank > 0)
    if results is not None:
        for variant in read_results(results).variants:
            figures = {score: variant.figure(score.key) for score in (R_FACESIM, CLIP_T)}
            means = [f"{score.title} {number(of.mean, score.digits)}" for score, of in figures.items() if of]
            print(f"{variant.label}: {', '.join(means) or 'no score'}")
        print(f"wrote {results}")
        print(f"next:  metalora benchmark report {quote(str(args.run))}")


def meta_downs_of(given: tuple[str, ...]) -> dict[str, str]:
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


def clip_of(own: PlanSettings) -> str | None:
    """Which CLIP; a default that is not installed is left out, one that was asked for is an error later."""
    if own.clip is None and importlib.util.find_spec("open_clip") is None:
        return None
    small = own.defaults_of in ("tiny", "miniature")
    name = own.clip or ("miniature" if small else "openai")
    return None if name == "none" else name


def words_of_base(base: BaseConfig, run: Path) -> dict[str, str]:
    """What names the base, to be found again by `run`; a default too, since another version may have another one."""
    from ..jobs.benchmark.plan_file import portable

    given = {name: portable(str(path), run) for name, path in base.single_files.items()}
    named = base.backbone or (None if given else DEFAULT_BACKBONE)
    return {**({"backbone": portable(named, run)} if named else {}), **given, "precision": base.precision}


def planned_backbone(plan: "Plan", named: Mapping[str, str], run: Path, device: str) -> "PipelineBackbone":
    """A base that the plan names so, run as the plan says, on this process's device."""
    from ..backbones.pipeline import Speed, open_backbone
    from ..jobs.benchmark.plan_file import located
    from ..method.world import device_of_process

    flags = {name: located(given, run) for name, given in named.items()}
    if "made_in" in flags:
        raise UserError(f"{run / 'plan.json'} was made in ComfyUI and runs there: its base has no name outside.")
    backbone = open_backbone(BaseConfig(**flags, device=device_of_process(device)))
    backbone.speed = Speed(**plan.speed)
    backbone.speed.check(backbone.device)
    return backbone


def report_benchmark(args: argparse.Namespace) -> None:
    """Write the page and the tables of a run."""
    from ..jobs.benchmark.report import benchmark_report as job

    report = driven(job(args.run, args.out))
    print(
        f"wrote {report.page} ({report.size / 1e6:.1f} MB, {report.shown} pictures), {report.images}, {report.variants}"
    )
    if report.absent:
        print(f"{report.absent} pictures are not in the run's folder, or not the ones that were scored")


def compare_on_frontier(args: argparse.Namespace) -> None:
    """Print each setting and its distances from the other method's curve."""
    from ..jobs.benchmark.frontier import BACKGROUND, LIKENESS, PROMPT
    from ..jobs.benchmark.frontier import frontier as job

    found = driven(job(args.runs, args.curve, args.only, args.plot))
    width = max(len(f"{one.setting.run} {one.setting.label}") for one in found)
    print(
        f"{'':{width}}  R-FaceSim  CLIP-T  background  R-FaceSim at equal CLIP-T  CLIP-T at equal R-FaceSim  "
        "background at equal R-FaceSim"
    )
    for one in found:
        own = one.setting
        means = [f"{own.mean(LIKENESS):9.3f}", f"{own.mean(PROMPT):6.2f}", f"{own.mean(BACKGROUND):10.0%}"]
        distances = [
            "off the curve" if d is None else f"{d.mean:+.{digits}f} ({d.low:.{digits}f} to {d.high:.{digits}f})"
            for d, digits in ((one.likeness, 3), (one.prompt, 2), (one.background, 3))
        ]
        print(f"{own.run + ' ' + own.label:{width}}  {'  '.join(means)}  {'  '.join(f'{d:>25}' for d in distances)}")
    if args.plot:
        print(f"wrote {args.plot}")

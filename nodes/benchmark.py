"""The benchmark in three nodes: a plan, its run, its report. The same jobs as `metalora benchmark`."""

from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..metalora.backbones.pipeline_folder import fingerprint_of_files
from ..metalora.config import METHODS, NONE, CropConfig, GenerateConfig, PersonalizeConfig, UserError
from ..metalora.config_benchmark import BenchmarkConfig
from ..metalora.jobs.benchmark.plan import Layout, Plan
from ..metalora.jobs.benchmark.plan_file import read_plan
from ..metalora.jobs.benchmark.prepare import ANY_CLASS, Inputs, make_plan, meta_phd_prompts, mini_benchmark
from ..metalora.jobs.benchmark.report import benchmark_report
from ..metalora.jobs.benchmark.run import run_benchmark
from ..metalora.jobs.benchmark.shares import Share
from ..metalora.measure import ANALYSERS
from ..metalora.settings import config_of
from ..metalora.store.cache import Cache, default_folder
from ..metalora.store.images import read_photo
from ..metalora.store.pictures import table
from .backbone import ComfyBackbone
from .bridge import folders
from .pictures import image_of
from .running import driven, work
from .sockets import BenchmarkSocket, MetaDown, MetaDownSocket, schema, widgets

SHIPPED, PAPER = "mini benchmark", "Meta-PHD (the paper's)"
CLIPS = ("none", "miniature", "openai")
SHOWN = 6  # people on the page of images


class PlanBenchmark(io.ComfyNode):
    """Everything decided and checked before any work."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MetaLoRA_BenchmarkPlan",
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.String.Input("name", default="benchmark"),
                io.String.Input("manifest", default=""),
                io.Combo.Input("prompts", options=[SHIPPED, PAPER]),
                io.String.Input(
                    "methods", default=f"{NONE}, lora", tooltip=f"Of {', '.join((NONE, *METHODS))}; with commas."
                ),
                *widgets(PersonalizeConfig, "steps", "rank", "learning_rate", "seed"),
                *widgets(BenchmarkConfig, "people", "prompts_each", "images_at_once"),
                *widgets(CropConfig, "resolution"),
                *widgets(GenerateConfig, "width", "height", "sampling_steps", "guidance"),
                io.Combo.Input("embedder", options=list(ANALYSERS)),
                io.Combo.Input("prompt_scorer", options=list(CLIPS)),
                MetaDownSocket.Input("meta_down", optional=True),
                *widgets(CropConfig, "learn_from", optional=True),
            ],
            outputs=[
                BenchmarkSocket.Output(display_name="benchmark"),
                io.String.Output(display_name="about"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, manifest: str, **_other: Any) -> str:
        path = manifest_of(manifest)
        return fingerprint_of_files([path]) if path.is_file() else manifest

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        name: str,
        manifest: str,
        prompts: str,
        methods: str,
        embedder: str,
        prompt_scorer: str,
        meta_down: MetaDown | None = None,
        **options: Any,
    ) -> io.NodeOutput:
        run = folders.output_folder(folders.FOLDER, "benchmarks", folders.plain_name(name))
        inputs = Inputs(
            manifest=manifest_of(manifest),
            prompts=meta_phd_prompts() if prompts == PAPER else mini_benchmark() / "prompts.json",
            meta_downs={ANY_CLASS: meta_down.source} if meta_down else {},
            backbone_flags={"made_in": "ComfyUI"},
            faces=embedder,
            clip=None if prompt_scorer == CLIPS[0] else prompt_scorer,
        )
        with work():
            config = config_of(BenchmarkConfig, {**options, "methods": listed(methods)})
            training, crops = config_of(PersonalizeConfig, options), config_of(CropConfig, options)
            sampling, backbone = config_of(GenerateConfig, options), ComfyBackbone(model, clip, vae)
            plan = driven(make_plan(run, backbone, inputs, config, training, crops, sampling))
            return io.NodeOutput(run, about(plan))


class RunBenchmark(io.ComfyNode):
    """Trains, makes images batch by batch, scores; goes on where it stopped."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MetaLoRA_BenchmarkRun",
            is_output_node=True,
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                BenchmarkSocket.Input("plan"),
            ],
            outputs=[
                BenchmarkSocket.Output(display_name="benchmark"),
                io.Image.Output(display_name="images"),
                io.String.Output(display_name="results"),
            ],
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, vae: Any, plan: Path) -> io.NodeOutput:
        with work():
            results = driven(run_benchmark(plan, ComfyBackbone(model, clip, vae), Cache(default_folder()), Share()))
            return io.NodeOutput(plan, image_of(page(plan)), str(results), ui=ui.PreviewText(str(results)))


class ReportBenchmark(io.ComfyNode):
    """The page of a finished run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MetaLoRA_BenchmarkReport",
            is_output_node=True,
            inputs=[BenchmarkSocket.Input("benchmark")],
            outputs=[io.String.Output(display_name="page")],
        )

    @classmethod
    def execute(cls, benchmark: Path) -> io.NodeOutput:
        with work():
            report = driven(benchmark_report(benchmark))
            return io.NodeOutput(str(report.page), ui=ui.PreviewText(str(report.page)))


def manifest_of(given: str) -> Path:
    """The file that is meant."""
    return folders.allowed_path(given) if given.strip() else mini_benchmark() / "manifest.jsonl"


def listed(methods: str) -> tuple[str, ...]:
    """Names between commas."""
    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    if not names:
        raise UserError(f"methods is empty; name some of {', '.join((NONE, *METHODS))}.")
    return names


def about(plan: Plan) -> str:
    """A sentence."""
    images = sum(len(plan.prompts_of(person)) for person in plan.people) * len(plan.seeds)
    return f"{len(plan.people)} people, {images} images of each of {len(plan.variants())} variants."


def page(run: Path) -> Tensor:
    """The first image of some people, method by method."""
    plan, layout = read_plan(run), Layout(run)
    rows = []
    for person in plan.people[:SHOWN]:
        prompt, seed = plan.prompts_of(person)[0], plan.seeds[0]
        files = [(layout.image(variant, person, prompt, seed), variant.id) for variant in plan.variants()]
        reference = (read_photo(run / person.reference), f"{person.identity}: reference")
        rows.append([reference, *((read_photo(path), label) for path, label in files if path.is_file())])
    return table(rows)

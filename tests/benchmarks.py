"""Small benchmark runs on the tiny FLUX, whose images show nobody: faces come in as images from elsewhere."""

from dataclasses import replace
from pathlib import Path

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import CropConfig, GenerateConfig, PersonalizeConfig
from metalora.config_benchmark import BenchmarkConfig
from metalora.jobs import run
from metalora.jobs.benchmark.plan import Plan
from metalora.jobs.benchmark.prepare import Inputs, make_plan, mini_benchmark
from metalora.jobs.benchmark.run import run_benchmark
from metalora.jobs.benchmark.shares import Share
from metalora.store.cache import Cache
from metalora.store.manifest import Identity, read_manifest

CONFIG = BenchmarkConfig(step_counts=(3, 5), people=5, prompts_each=2, together=2, images_at_once=3)
TRAINING = PersonalizeConfig(learning_rate=3e-3, save_every=2, background_weight=0.3, ema_steps=2)
CROPS = CropConfig(resolution=64)
SAMPLING = GenerateConfig(width=64, height=64, sampling_steps=2)
# The same as flags of `metalora benchmark plan`.
GIVEN = (
    "--meta-down random --steps 3 5 --people 5 --prompts-each 2 --together 2 --images-at-once 3 --learning-rate 3e-3 "
    "--save-every 2 --background-weight 0.3 --ema-steps 2 --resolution 64 --width 64 --height 64 "
    "--sampling-steps 2 --backbone tiny"
)
FLAGS = GIVEN.split()

INPUTS = Inputs(
    manifest=mini_benchmark() / "manifest.jsonl",
    prompts=mini_benchmark() / "prompts.json",
    meta_downs={"": "random"},
    backbone_flags={"backbone": "tiny", "precision": "auto"},
    faces="sface",
    clip=None,
)
WITH_CLIP = replace(INPUTS, clip="miniature")


def mini_people() -> list[Identity]:
    """Everyone in the mini benchmark."""
    return read_manifest(INPUTS.manifest, look=False).people


def planned(
    folder: Path,
    backbone: PipelineBackbone,
    inputs: Inputs = INPUTS,
    crops: CropConfig = CROPS,
    draws: PipelineBackbone | None = None,
    **changes: object,
) -> Plan:
    return run(make_plan(folder, backbone, inputs, replace(CONFIG, **changes), TRAINING, crops, SAMPLING, draws))


def finished(folder: Path, backbone: PipelineBackbone, cache: Cache, draws: PipelineBackbone | None = None) -> bytes:
    """The bytes of results.json."""
    path = run(run_benchmark(folder, backbone, cache, Share(), draws))
    assert path is not None
    return path.read_bytes()

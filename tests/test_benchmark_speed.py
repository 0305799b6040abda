"""How a benchmark runs its base: the plan says it, and every process keeps to it."""

import json
from pathlib import Path

import pytest
from benchmarks import FLAGS, finished, planned

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.speed import Speed
from metalora.backbones.tiny_flux import TinyFlux
from metalora.cli import main
from metalora.commands.benchmark import planned_backbone
from metalora.config import UserError
from metalora.jobs.benchmark.plan_file import read_plan
from metalora.store import files
from metalora.store.cache import Cache

SMALL = ["--methods", "none", "lora", "--people", "1", "--prompts-each", "1", "--steps", "2", "--clip", "none"]


def test_the_plan_has_the_speed_flags_and_a_run_keeps_to_them(
    tiny: PipelineBackbone,
    warm_cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setenv("METALORA_CACHE", str(warm_cache.folder))
    run = tmp_path / "run"
    assert main(["benchmark", "plan", str(run), *FLAGS, *SMALL, "--eight-bit"]) == 0
    plan = read_plan(run)
    assert plan.speed == {"eight_bit": True}
    assert planned_backbone(plan, plan.backbone_flags, run, "cpu").speed == Speed(eight_bit=True)
    assert plan.backbone["fingerprint"].endswith("int8")
    with pytest.raises(UserError, match=r"how the base is run \(planned: .*8-bit"):
        finished(run, tiny, warm_cache)
    assert main(["benchmark", "run", str(run)]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["backbone"]["fingerprint"].endswith("int8")
    said = capsys.readouterr().out.splitlines()
    for variant in results["variants"]:  # noise has no face
        assert f"{variant['label']}: no score" in said
    (lora,) = run.glob("loras/*/*.safetensors")
    _, metadata = files.read(lora, ("lora",))
    assert metadata["base_fingerprint"] == plan.backbone["fingerprint"]


def test_the_kernel_and_compiling_are_part_of_the_plan_too(tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path):
    other = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, Speed(compiled=True, attention="math"))
    plan = planned(tmp_path, other, methods=("none",), people=1, prompts_each=1)
    assert plan.speed == {"compiled": True, "attention": "math"}
    assert planned(tmp_path / "plain", tiny, methods=("none",), people=1, prompts_each=1).speed == {}
    with pytest.raises(UserError, match=r"how the base is run \(planned: attention math, compiled blocks\)"):
        finished(tmp_path, tiny, warm_cache)

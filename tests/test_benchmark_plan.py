"""What a benchmark plans: settings, learning rates, captions, prompts; and what it refuses."""

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import FLAGS, INPUTS, finished, planned

from metalora.backbones.pipeline import PipelineBackbone, Speed
from metalora.backbones.tiny_flux import TinyFlux
from metalora.cli import main
from metalora.commands.benchmark import planned_backbone
from metalora.config import METHODS, Step, UserError
from metalora.config_benchmark import BenchmarkConfig
from metalora.jobs.benchmark.plan_file import read_plan
from metalora.jobs.benchmark.prepare import meta_phd_prompts
from metalora.jobs.benchmark.run import TimeLeft
from metalora.store import files
from metalora.store.cache import Cache


def test_a_method_may_have_a_learning_rate_of_its_own(tiny: PipelineBackbone, tmp_path: Path):
    plan = planned(tmp_path, tiny, replace(INPUTS, learning_rates={"lora": 0.002}))
    rates = {method: plan.training_of(method, 1, plan.people[0], 3).learning_rate for method in METHODS}
    assert rates == {"lora": 0.002, "meta-lora": 3e-3}
    assert read_plan(tmp_path) == plan


def test_a_folder_holds_one_plan_or_says_how_to_make_one(tiny: PipelineBackbone, tmp_path: Path):
    first = planned(tmp_path, tiny)
    assert planned(tmp_path, tiny) == first
    with pytest.raises(UserError, match=r"is another plan \(seeds.* differ\)|another plan \(prompts, seeds differ\)"):
        planned(tmp_path, tiny, seeds=(4,))
    with pytest.raises(UserError, match="`metalora benchmark plan"):
        read_plan(tmp_path / "empty")


def test_the_paper_prompts_plan_both_parts_and_age_can_be_left_out(tiny: PipelineBackbone, tmp_path: Path):
    inputs = replace(INPUTS, prompts=meta_phd_prompts())
    plan = planned(
        tmp_path,
        tiny,
        inputs,
        methods=("none",),
        parts=("several-photos", "single-photo"),
        people=0,
        prompts_each=0,
        leave_out=("age",),
    )
    assert len(plan.people) == 76
    several, single = ([p for p in plan.people if p.part == part] for part in ("several-photos", "single-photo"))
    assert {len(plan.prompts_of(person)) for person in several} == {10}
    assert {p.class_name: len(plan.prompts_of(p)) for p in single} == {"man": 18, "woman": 20}
    text = (tmp_path / "external" / "wanted.jsonl").read_text()
    assert "year-old" not in text
    assert text.count("\n") == 2 * (16 * 10 + 30 * 18 + 30 * 20)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"methods": ("lora", "pulid")}, "methods must be one of none, meta-lora, lora, got 'pulid'"),
        ({"seeds": ()}, "seeds is empty"),
        ({"ranks": (1, 1)}, "ranks has something twice: 1 1"),
        ({"step_counts": (0,)}, "step_counts must be at least 1, got 0"),
        ({"parts": ("ffhq",)}, "parts must be one of several-photos, single-photo, got 'ffhq'"),
    ],
)
def test_wrong_settings_are_named(change: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        BenchmarkConfig(**change)


def test_meta_lora_needs_a_meta_down_of_every_class(tiny: PipelineBackbone, tmp_path: Path):
    with pytest.raises(UserError, match="needs a Meta-Down for the class man"):
        planned(tmp_path, tiny, replace(INPUTS, meta_downs={"woman": "random"}))
    with pytest.raises(UserError, match="--meta-down names cat, but the people are man, woman"):
        planned(tmp_path, tiny, replace(INPUTS, meta_downs={"": "random", "cat": "random"}))
    with pytest.raises(UserError, match=r"rank \(r2\) 32 is larger than meta_rank \(r1\) 16.*raise --meta-rank"):
        planned(tmp_path, tiny, ranks=(32,), methods=("meta-lora",))


@pytest.mark.parametrize("line", ['method = "lora"', "steps = 5", 'class_name = "man"'])
def test_a_settings_file_with_what_a_plan_has_several_of_is_refused(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "settings.toml").write_text(line + "\n")
    assert main(["benchmark", "plan", str(tmp_path / "run"), "--config", str(tmp_path / "settings.toml")]) == 1
    assert f"settings.toml has no setting called {line.split()[0]}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


SMALL = ["--methods", "none", "lora", "--people", "1", "--prompts-each", "1", "--steps", "2", "--clip", "none"]


def test_the_plan_has_the_speed_flags_and_a_run_keeps_to_them(
    here: Path, tiny: PipelineBackbone, warm_cache: Cache, capsys: pytest.CaptureFixture
):
    run = here / "run"
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


def test_a_run_says_the_hours_that_are_left_from_the_steps_that_it_has_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)  # a second a step
    left = TimeLeft({"training": 7_300, "images": 10})
    assert str(left) == "time left not known yet"
    list(left.timed((Step(index, 7_300) for index in (100, 101, 102)), "training"))  # 99 were done before
    assert left.left["training"] == 7_300 - 102
    assert str(left) == "about 2.0 hours left, without images"
    numbered = list(left.timed((Step(1, 5) for _ in range(10)), "images", (Step(n, 10) for n in itertools.count(1))))
    assert [step.index for step in numbered] == list(range(1, 11))
    assert str(left) == "about 2.0 hours left"

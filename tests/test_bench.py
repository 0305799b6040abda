"""The benchmarks' own arithmetic: phases, and what a step must cost."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from bench import personalization
from bench.phases import summed, timed
from bench.profile import kind_of
from bench.profile import table as profile_table
from bench.reporting import OUT_OF_MEMORY, REFUSED, table, written
from bench.training_step import tflop
from bench.worlds import options
from metalora.config import Phase, Step, UserError


@pytest.mark.parametrize(
    ("pixels", "checkpointing", "expected"),
    [(512, "none", 45), (512, "full", 67), (1024, "none", 171), (1024, "selective", 171), (1024, "full", 245)],
)
def test_a_step_of_flux_dev_costs_what_its_shape_says(pixels: int, checkpointing: str, expected: int):
    """Counted by hand: 57 blocks of width 3072, 512 tokens of text, no gradient of any weight."""
    flags = argparse.Namespace(size="flux-dev", pixels=pixels, batch=1, checkpointing=checkpointing)
    assert tflop(flags) == pytest.approx(expected, rel=0.01)


def test_each_phase_has_its_seconds_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(100))
    monkeypatch.setattr("bench.phases.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("bench.phases.time.process_time", lambda: 0.0)

    def job():
        yield Phase("encoding: crops")
        yield Phase("training")
        yield Step(1, 2)
        yield Step(2, 2)

    found = timed(job(), "reading", "saving after {}", "cpu")
    assert list(found) == ["reading", "encoding", "training", "saving after training"]
    assert summed(found) == [5, 0]


@pytest.mark.parametrize(
    ("error", "status", "key"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"), OUT_OF_MEMORY, "out_of_memory"),
        (UserError("Attention 'flash-3' cannot be used here"), REFUSED, "refused"),
    ],
)
def test_what_does_not_fit_or_is_not_to_be_had_is_a_result(tmp_path: Path, error: Exception, status: int, key: str):
    def measure(_arguments: argparse.Namespace) -> dict:
        raise error

    assert written(options("").parse_args(["--out", str(tmp_path / "x.json")]), measure, table) == status
    report = json.loads((tmp_path / "x.json").read_text())
    assert report[key] == str(error).splitlines()[0]


def test_all_steps_of_a_person_are_timed_on_crops_of_the_five_aspect_ratios(monkeypatch: pytest.MonkeyPatch):
    sizes, draw = set(), personalization.TrainingImages.draw

    def watched(images: personalization.TrainingImages, *given: object) -> torch.Tensor:
        assert len(images.latents) == personalization.CROPS
        sizes.update(tuple(views.shape[2:]) for views in images.latents)
        return draw(images, *given)

    monkeypatch.setattr(personalization.TrainingImages, "draw", watched)
    report = personalization.measured(options("").parse_args(["--pixels", "128", "--steps", "3"]))
    assert sizes == {(12, 22), (14, 18), (16, 16), (18, 14), (22, 12)}
    assert report["whole_seconds"] == pytest.approx(sum(report["phases"].values()))
    assert set(report["phases"]) == {"encoding", "first steps", "other steps"}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("image 3 of 18: a-beach-0.png", "image"),
        ("personalizing: lora-crops, 25 crops, 'a photo of a woman'", "personalizing: lora-crops"),
        ("group 1 of 2, 2 x woman: meta-lora, rank 4; about a minute left", "training meta-lora"),
        ("group 1 of 2, 2 x woman: images of lora-crops-375-r4; about a minute left", "images of lora-crops"),
        ("woman without a LoRA: images of none; time left not known yet", "images of none"),
        ("encoding 42 crops", "encoding crops"),
    ],
)
def test_a_profile_adds_up_phases_of_one_kind(said: str, kind: str):
    assert kind_of(said) == kind


def test_a_profile_shows_the_longest_phase_first():
    lines = profile_table({"short": (9.0, 1.0), "long": (4.0, 3.0)}, "title").splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["long", "short", "all"]
    assert lines[-1].split() == ["all", "4.00", "100.0", "%", "13.00"]

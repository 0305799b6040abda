"""The benchmarks' own arithmetic: phases, and what a step must cost."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.training_step import OUT_OF_MEMORY, REFUSED, main, tflop
from bench.whole_job import summed, timed
from metalora.config import Phase, Step, UserError


@pytest.mark.parametrize(
    ("pixels", "checkpointing", "expected"),
    [(512, "none", 45), (512, "full", 67), (1024, "none", 171), (1024, "selective", 171), (1024, "full", 245)],
)
def test_a_step_of_flux_dev_costs_what_its_shape_says(pixels: int, checkpointing: str, expected: int):
    """Counted by hand: 57 blocks of width 3072, 512 tokens of text, no gradient of any weight."""
    flags = argparse.Namespace(size="flux-dev", pixels=pixels, batch=1, checkpointing=checkpointing)
    assert tflop(flags) == pytest.approx(expected, rel=0.01)


def test_all_three_loops_take_a_step_side_by_side(tmp_path: Path):
    loops = ["ours", "peft", "stage-1"]
    assert main(["--steps", "1", "--loops", *loops, "--out", str(tmp_path / "x.json")]) == 0
    report = json.loads((tmp_path / "x.json").read_text())
    assert list(report["seconds"]) == list(report["peak_mb"]) == loops
    assert report["memory_ratio"] < 1, "a frozen Meta-Down's layers forget their inputs"


def test_each_phase_has_its_seconds_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(100))
    monkeypatch.setattr("bench.whole_job.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("bench.whole_job.time.process_time", lambda: 0.0)

    def job():
        yield Phase("encoding: crops")
        yield Phase("training")
        yield Step(1, 2)
        yield Step(2, 2)

    found = timed(job(), "reading", "saving")
    assert list(found) == ["reading", "encoding", "training", "saving"]
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

    assert main(["--out", str(tmp_path / "x.json")], measure) == status
    report = json.loads((tmp_path / "x.json").read_text())
    assert report[key] == str(error).splitlines()[0]


def test_the_script_for_a_gpu_runs_on_small_shapes(tmp_path: Path):
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "gpu.json")]) == 0
    lines = json.loads((tmp_path / "gpu.json").read_text())
    assert [line["size"] for line in lines] == list(gpu.SMALL)
    assert all(line[loop]["seconds"] > 0 for line in lines for loop in ("ours", "peft"))

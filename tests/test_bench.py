"""The benchmarks' own arithmetic: phases, and what a step must cost."""

import argparse
import json
from pathlib import Path

import pytest

from bench.training_step import main, tflop
from bench.whole_job import summed, timed
from metalora.config import Phase, Step


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
    main(["--steps", "1", "--loops", *loops, "--out", str(tmp_path / "x.json")])
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

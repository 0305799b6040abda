"""Meta-training on the tiny FLUX, from photos to a Meta-Down that personalize can use, as a user runs it."""

import csv
import sys
from pathlib import Path

import pytest
import torch

from metalora.cli import main
from metalora.store import files

pytestmark = pytest.mark.slow

BENCHMARK = str(Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark" / "manifest.jsonl")
FAST = ["--objective", "paper", "--resolution", "64", "--steps", "12", "--batch", "2"]
FAST += ["--bucket-steps", "6", "--warmup-steps", "2", "--bucket-people", "4", "--save-every", "5"]
FAST += ["--validation-people", "1", "--validation-steps", "2"]


def test_from_photos_to_a_meta_down_and_on(here: Path, capsys: pytest.CaptureFixture):
    command = ["meta-train", BENCHMARK, "--class", "man", "--backbone", "tiny", *FAST]
    assert main([*command, "--out", "man.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "held-out people gain from 2 steps" in said
    assert "next:  metalora personalize photo.jpg --meta-down man.safetensors --class man" in said
    downs, metadata = files.read(here / "man.safetensors", ("meta-down",))
    assert metadata["domain"] == "man"
    assert sum(name.endswith(".down") for name in downs) == len(downs) == 40
    with (here / "man.run" / "steps.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["warm_up"] for row in rows] == list("110000110000")
    assert (here / "man.run" / "progress.png").exists()
    with (here / "man.run" / "validation.csv").open() as table:
        assert [row["step"] for row in csv.DictReader(table)] == ["0", "5", "10", "12"]
    # stopped at 5 and gone on from there: the same bytes
    assert main([*command, "--steps", "5", "--out", "again.safetensors"]) == 0
    assert main([*command, "--out", "again.safetensors", "--overwrite"]) == 0
    assert "going on from step 5" in capsys.readouterr().err
    again, _ = files.read(here / "again.safetensors", ("meta-down",))
    assert all(torch.equal(again[name], down) for name, down in downs.items())
    # another seed is another run
    assert main([*command, "--seed", "1", "--out", "again.safetensors", "--overwrite"]) == 1
    assert "options differ" in capsys.readouterr().err
    personal = ["personalize", "ada.jpg", "--backbone", "tiny", "--meta-down", "man.safetensors", "--steps", "2"]
    personal += ["--resolution", "64"]
    assert main(personal) == 0


def test_bad_people_are_refused_before_anything_is_encoded(here: Path, capsys: pytest.CaptureFixture):
    for person in ("ada", "bob"):
        (here / "people" / person).mkdir(parents=True)
        (here / "people" / person / "1.jpg").write_bytes(b"no photo")
    assert main(["meta-train", "people", "--out", "x.safetensors"]) == 1
    said = capsys.readouterr().err
    assert "2 problems" in said
    assert "Nothing was started" in said
    assert main(["meta-train", "people", "--out", "people/x.safetensors"]) == 1
    assert "every folder is taken for a person" in capsys.readouterr().err


def test_tensorboard_shows_every_step_once_also_of_a_run_that_was_stopped(here: Path):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install -e .[tensorboard]"
    )
    command = ["meta-train", BENCHMARK, "--class", "man", "--backbone", "tiny", *FAST, "--out", "man.safetensors"]
    assert main([*command, "--tensorboard", "--steps", "7"]) == 0
    for checkpoint in sorted((here / "man.run" / "checkpoints").glob("*7.safetensors")):
        checkpoint.unlink()  # as if it had been killed after step 7: the last checkpoint is of step 5
    assert main([*command, "--tensorboard", "--steps", "8", "--overwrite"]) == 0
    events = reading.EventAccumulator(str(here / "man.run" / "tensorboard"))
    events.Reload()
    shown = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    with (here / "man.run" / "steps.csv").open() as table:
        losses = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(table)]
    assert [step for step, _ in shown["loss"]] == list(range(1, 9))
    assert [loss for _, loss in shown["loss"]] == pytest.approx([loss for _, loss in losses], rel=1e-5)
    assert [step for step, _ in shown["unseen_after"]] == [0, 5, 8]
    assert shown.keys() == {"loss", "bucket_visit", "warm_up", "unseen_before", "unseen_after"}


def test_tensorboard_that_is_not_installed_is_said_before_anything_is_done(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were not installed
    command = ["meta-train", "nowhere", "--backbone", "tiny", *FAST, "--out", "man.safetensors", "--tensorboard"]
    assert main(command) == 1
    assert "pip install tensorboard" in capsys.readouterr().err

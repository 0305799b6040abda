"""The suite of measurements: what it would run, that it goes on, and what becomes of a row that does not fit."""

import json
from pathlib import Path

import pytest

from bench import suite
from bench.profile import kind_of
from bench.profile import table as profile_table
from bench.reporting import OUT_OF_MEMORY
from bench.suite_report import plot, table
from bench.suite_rows import Row, rows_of

FAKE = """
import json, sys
from pathlib import Path
seconds, status, out = float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[4])
runs = out.parent / "runs.txt"
runs.open("a").write(sys.argv[1] + "\\n")
print("the last words")
if status in (0, 3):
    out.write_text(json.dumps({"machine": "a made-up one", "seconds_an_image": seconds}))
sys.exit(status)
"""


def test_each_kind_of_machine_has_its_rows():
    gpu, quick, cpu = rows_of("cuda"), rows_of("cuda", quick=True), rows_of("cpu")
    assert len({row.name for row in gpu}) == len(gpu)
    flags = [" ".join(row.flags) for row in gpu]
    for pixels in (512, 1024):
        for batch in (1, 4):
            assert any(f"--pixels {pixels} --peak 790 --batch {batch}" in words for words in flags)
        for technique in ("--compile", "--compile --cuda-graphs", "--eight-bit", "--attention cudnn"):
            assert any(f"--pixels {pixels} " in words and words.endswith(technique) for words in flags)
    assert {words.split("--memory-gb ")[1][:2] for words in flags if "--memory-gb" in words} == {"24", "16", "12"}
    assert {row.module for row in cpu} == {row.module for row in gpu} == {row.module for row in quick}
    assert not any("1024" in word for row in quick for word in row.flags)
    assert not any("cuda" in word or "flux-dev" in word for row in cpu for word in row.flags)


def row(folder: Path, name: str, seconds: float, status: int = 0) -> Row:
    """A measurement that ends at once, with this exit status."""
    module = folder / "fake_measurement.py"
    module.write_text(FAKE)
    return Row(name, "a group", "fake_measurement", [str(seconds), str(status)])


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kinds = [("fits", 1.5, 0), ("too-large", 2.5, OUT_OF_MEMORY), ("broken", 3.5, 1)]
    found = [row(tmp_path, *kind) for kind in kinds]
    monkeypatch.setattr(suite, "rows_of", lambda *_args, **_options: found)
    return found


def test_a_suite_keeps_what_is_finished_and_tries_again_what_failed(rows: list[Row], tmp_path: Path):
    out = tmp_path / "out"
    assert suite.main([str(out), "--device", "cpu"]) == 0
    records = json.loads((out / "suite.json").read_text())["rows"]
    assert [record["status"] for record in records] == ["done", "out of memory", "failed"]
    assert records[2]["said"] == ["the last words"]
    assert suite.main([str(out), "--device", "cpu"]) == 0
    assert (out / "rows" / "runs.txt").read_text().split() == ["1.5", "2.5", "3.5", "3.5"]
    rows[0] = row(tmp_path, "fits", 9.5)  # another command: its old figures are not its own
    assert suite.main([str(out), "--device", "cpu"]) == 0
    assert (out / "rows" / "runs.txt").read_text().split()[4:] == ["9.5", "3.5"]


def test_a_row_that_hangs_is_stopped_and_the_next_one_runs(rows: list[Row], tmp_path: Path):
    (tmp_path / "hanging.py").write_text('import time\nprint("it waits", flush=True)\ntime.sleep(60)\n')
    rows[:] = [Row("hangs", "a group", "hanging", []), rows[0]]
    assert suite.main([str(tmp_path / "out"), "--device", "cpu", "--minutes", "0.2"]) == 0
    hung, fine = json.loads((tmp_path / "out" / "suite.json").read_text())["rows"]
    assert hung["status"] == "stopped after 0.2 minutes"
    assert hung["said"] == ["it waits"]
    assert fine["status"] == "done"


def test_some_rows_alone_in_the_order_they_were_asked_for():
    rows = rows_of("cuda")
    names = [row.name for row in suite.chosen(rows, ["person-1024", "step-512-batch-1-none"])]
    assert names[0] == "person-1024"
    assert names[-2:] == ["step-512-batch-1-none", "step-512-batch-1-none-ours"]
    with pytest.raises(SystemExit, match=r"No row has nonsense .*step-512-compiled"):
        suite.chosen(rows, ["nonsense"])


def test_a_list_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert suite.main([str(tmp_path / "out"), "--device", "cuda", "--list"]) == 0
    assert "-m bench.training_step --device cuda --size flux-dev" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_table_and_the_plot_show_what_was_measured_and_what_was_not():
    figures = {
        "machine": "a card",
        "run": "attention auto",
        "attention": "flash",
        "seconds": {"ours": 0.3, "peft": 0.6},
    }
    figures |= {"peak_mb": {"ours": 12_000, "peft": 20_000}, "whole_peak_mb": 40_000, "time_ratio": 0.5}
    figures |= {"joules": {"ours": 210.0, "peft": 400.0}, "times_the_floor": 1.4, "memory_ratio": 0.6}
    step, images = ["-m", "bench.training_step"], ["-m", "bench.generation"]
    records = [
        {"name": "both", "group": "stage 2", "command": step, "status": "done", "report": figures},
        {
            "name": "large",
            "group": "stage 2",
            "command": step,
            "status": "out of memory",
            "report": {},
            "said": ["CUDA"],
        },
        {"name": "flash-3", "group": "stage 2", "command": step, "status": "refused", "said": ["it is not installed"]},
        {
            "name": "images",
            "group": "images",
            "command": images,
            "status": "done",
            "report": {"machine": "a card", "seconds_an_image": 2.0, "images_a_minute": 30.0, "energy": "no GPU"},
        },
    ]
    text = table(records, missing=2)
    assert "| both | 0.3 | 0.5 | 1.4 | 12 | 40 | 210 | attention auto (flash), memory ratio 0.6 |" in text
    assert "| large | - | - | - | - | - | - | out of memory |" in text
    assert "| flash-3 | - | - | - | - | - | - | it is not installed |" in text
    assert "| images | 2 | - | - | - | - | - | images a minute 30 |" in text
    assert "Machine: a card." in text
    assert "Energy: no GPU." in text
    assert "2 rows are not measured yet." in text
    picture = plot(records)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert plot(records[1:]) is None


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

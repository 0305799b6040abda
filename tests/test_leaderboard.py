"""The leaderboard: it ranks what can be ranked and refuses the rest. The results are made up."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_results import made_up_run, person_means, read, write
from report_pages import Page

from metalora.cli import main
from metalora.config import UserError
from metalora.jobs import run
from metalora.jobs.benchmark.compare import benchmark_compare
from metalora.measure.intervals import paired
from metalora.store.report.leaderboard import check_comparable
from metalora.store.report.reading import read_results
from metalora.store.report.scores import number

OTHER = "f" * 64


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("made_up")
    return [
        made_up_run(folder / "first", 6, 2, 1, (("lora", 375), ("lora-crops", 375))),
        made_up_run(folder / "second", 6, 2, 1, (("meta-lora", 375), ("none", None))),
    ]


def test_all_variants_are_ranked_by_r_facesim(runs: list[Path], tmp_path: Path):
    board = run(benchmark_compare(runs, tmp_path / "board.html"))
    with board.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == [
        "second: meta-lora-375-r1",
        "first: lora-crops-375-r1",
        "first: lora-375-r1",
        "second: none",
    ]
    page = Page(board.page.read_text(encoding="utf-8"))
    assert "Meta-LoRA, 375 steps, rank 1 (second) makes the faces most like the person" in page.text
    assert {picture.get("class") for picture in page.named("img")} == {"chart"}
    assert board.page.stat().st_size < 5_000_000


def test_variants_of_two_runs_are_compared_person_by_person(runs: list[Path], tmp_path: Path):
    page = Page(run(benchmark_compare(runs, tmp_path / "board.html")).page.read_text(encoding="utf-8"))
    first, second = (
        person_means(next(v for v in read(folder)["variants"] if v["id"] == name)["images"], "clip_t")
        for folder, name in zip(runs, ("lora-crops-375-r1", "meta-lora-375-r1"), strict=True)
    )
    found = paired(second, first)  # CLIP-T has no misses: the made-up means are the benchmark's
    mean, low, high = (found.mean, found.low, found.high) if found.mean >= 0 else (-found.mean, -found.high, -found.low)
    assert f"CLIP-T{number(mean, 2, signed=True)}{number(low, 2, signed=True)} to {number(high, 2, signed=True)}6" in (
        page.text
    )


def test_any_variant_may_be_the_one_that_others_are_compared_with(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    command = ["benchmark", "compare", *map(str, runs), "--out", str(tmp_path / "board.html")]
    assert main([*command, "--against", "first:lora-375-r1"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ": r_facesim " in line]
    assert {line.split(" minus ")[0] for line in lines} == {"first: lora-375-r1"}
    others = {line.split(" minus ")[1].split(": r_facesim")[0]: line for line in lines}
    assert others.keys() == {"second: meta-lora-375-r1", "first: lora-crops-375-r1", "second: none"}
    assert ": r_facesim -" in others["second: meta-lora-375-r1"]
    assert ": r_facesim +" in others["second: none"]
    assert all(line.endswith("), 6 people") for line in lines)  # with an interval
    assert main([*command, "--against", "first:lora-625-r1"]) == 1
    assert "There are second:meta-lora-375-r1" in capsys.readouterr().err


DIFFERENT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "photos": (
        lambda r: r["benchmark"].update(manifest_sha256=OTHER),
        "the manifest's sha256: .*ffffffffffff... in second",
    ),
    "prompts": (lambda r: r["benchmark"].update(prompts_sha256=OTHER), "the prompts' sha256"),
    "face embedder": (
        lambda r: r["embedders"]["faces"].update(name="arcface", sha256=OTHER),
        "the face embedder: sface .* in first, arcface f",
    ),
    "CLIP": (lambda r: r["embedders"]["clip"].update(sha256=OTHER), "CLIP: ViT-B-32"),
    "fewer people": (
        lambda r: (
            r["benchmark"]["identities"].pop(),
            [v["images"].clear() for v in r["variants"]],
        ),
        "the people: 6 .* in first, 5 ",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_runs_that_measured_otherwise_are_refused_with_what_differs(name: str, runs: list[Path], tmp_path: Path):
    change, message = DIFFERENT[name]
    record = read(runs[1])
    change(record)
    (tmp_path / "second").mkdir()
    write(tmp_path / "second", record)
    with pytest.raises(UserError, match=message):
        run(benchmark_compare([runs[0], tmp_path / "second"], tmp_path / "board.html"))
    assert not (tmp_path / "board.html").exists()


def test_a_run_without_clip_is_still_ranked_by_faces(runs: list[Path], tmp_path: Path):
    record = read(runs[1])
    record["embedders"]["clip"] = None
    write(tmp_path, record)
    check_comparable({"first": read_results(runs[0]), "second": read_results(tmp_path)})


def test_two_folders_of_one_name_are_told_apart_and_one_run_is_no_comparison(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "first").mkdir()
    write(tmp_path / "first", read(runs[1]))
    board = run(benchmark_compare([runs[0], tmp_path / "first"], tmp_path / "board.html"))
    assert board.variants == 4
    assert main(["benchmark", "compare", str(runs[0]), str(runs[0]), "--out", str(tmp_path / "x.html")]) == 1
    assert "two or more different runs" in capsys.readouterr().err
    assert main(["benchmark", "compare", *map(str, runs), "--out", str(tmp_path / "x.txt")]) == 1
    assert "ends in .html" in capsys.readouterr().err

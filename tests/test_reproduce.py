"""The reproduction: every piece in small on the tiny FLUX, and what its report says of results that are made up."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_up_results import MINI, made_up_run, read, write

from bench.reproduce import batches, main, needed, run_all
from bench.reproduce_figures import R_FACESIM, difference, like, paces
from bench.reproduce_pieces import Command, Inputs, Piece, pieces_of
from bench.reproduce_report import write_report
from bench.reproduce_sizes import SIZES
from metalora.cli import make_parser
from metalora.config import UserError
from metalora.store.cache import Cache
from metalora.store.report.reading import read_results

PEOPLE = MINI / "manifest.jsonl"
METHODS = [(method, steps) for method in ("lora", "lora-crops", "meta-lora") for steps in (75, 150, 300)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Made-up results of two pieces; the random Meta-Down is worse by 0.1 on everybody."""
    made_up_run(tmp_path / "methods", variants=METHODS)
    made_up_run(tmp_path / "random", variants=METHODS[-3:])
    record = read(tmp_path / "random")
    for variant in record["variants"]:
        for image in variant["images"]:
            image["held_out"] = image["held_out"] and image["held_out"] - 0.1
    write(tmp_path / "random", record)
    return tmp_path


def test_pieces_run_go_on_and_end_in_a_report(
    tmp_path: Path, warm_cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("METALORA_CACHE", str(warm_cache.folder))
    command = [str(tmp_path), "--size", "small", "--people", str(PEOPLE), "--pieces", "mean-heads", "loras-2", "report"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.count("\n   metalora personalize") == 4
    assert "hours left" in said
    table = (tmp_path / "report" / "tables.md").read_text()
    assert "# Tables of the reproduction" in table
    for piece in ("mean-heads", "loras-2"):
        assert [v.steps for v in read_results(tmp_path / piece).variants] == [1, 2]
    (tmp_path / "loras-2" / "results.json").unlink()
    assert main(command) == 0
    done_again = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("== ")]
    assert done_again == ["== loras-2", "== loras-2"]  # its plan and its run


def test_independent_commands_run_side_by_side_and_others_in_their_order(tmp_path: Path):
    (tmp_path / "made").touch()
    commands = [
        Command(["plan"], tmp_path / "a"),
        *(Command([word], tmp_path / word, beside=True) for word in ("made", "b", "c", "d")),
        Command(["run"], tmp_path / "a"),
    ]
    piece = Piece("loras", "", tmp_path, lambda: commands)
    together = [[command.words[0] for command in at_once] for at_once in batches(piece, 2)]
    assert together == [["plan"], ["b", "c"], ["d"], ["run"]]
    assert len(list(batches(piece, 1))) == 5


def test_the_first_of_several_that_fails_ends_it_with_its_status(tmp_path: Path):
    (tmp_path / "ends.py").write_text("import sys; sys.exit(int(sys.argv[1]))")

    def ends(status: int) -> Command:
        return Command([str(status)], tmp_path / "nothing", program="ends", beside=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        assert run_all([ends(0), ends(3)], processes=2) == 3
        assert run_all([ends(0), ends(0)], processes=2) == 0


def test_a_command_that_fails_ends_it_with_its_status(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = [str(tmp_path), "--size", "small", "--people", str(tmp_path / "gone.jsonl"), "--pieces", "trained"]
    assert main(command) == 1
    assert "gone.jsonl cannot be read" in capsys.readouterr().err
    assert main([str(tmp_path), "--people", str(PEOPLE), "--pieces", "report"]) == 1
    assert "No piece has results yet" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--pieces", "figure-7"])
    assert "no such piece: figure-7" in capsys.readouterr().err


@pytest.mark.parametrize("size", list(SIZES))
def test_every_command_of_every_size_is_one_that_exists(size: str, tmp_path: Path):
    pieces = pieces_of(tmp_path, SIZES[size], Inputs(people=PEOPLE))
    for piece in pieces:
        assert piece.commands()
        for command in piece.commands():
            make_parser().parse_args(command.words)
    by_name = {piece.name: piece for piece in pieces}
    assert all(need in by_name for piece in pieces for need in piece.needs)
    loras = "loras-8" if size != "small" else "loras-2"
    assert needed([loras], by_name) == ["person-loras", f"{loras}-down", loras]
    order = needed(list(by_name), by_name)
    assert sorted(order) == sorted(by_name)
    assert all(order.index(need) < order.index(name) for name in order for need in by_name[name].needs)


def test_without_people_they_are_rendered_first(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([str(tmp_path), "--list"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("people: people to meta-train on, rendered")
    assert "python -m tools.miniature.render --split meta --people 400" in said
    assert not list(tmp_path.iterdir())


def test_the_difference_between_runs_is_paired_over_people(runs: Path):
    ours = read_results(runs / "methods")
    control = read_results(runs / "random")
    for variant in control.variants:
        found = difference(like(ours, variant), variant, R_FACESIM)
        assert found.count == 6
        assert found.mean == pytest.approx(0.1)
        assert found.low == pytest.approx(found.high)


def test_the_pace_is_the_first_step_count_at_which_meta_lora_is_as_like_as_lora_with_crops_at_its_best(runs: Path):
    """Made up: likeness rises with the steps, 0.62 for Meta-LoRA and 0.58 for LoRA + crops in the end."""
    results = read_results(runs / "methods")
    (found,) = paces(results)
    likeness = {(v.method, v.steps): v.figure(R_FACESIM).mean for v in results.variants}
    assert (found.rank, found.best.steps) == (1, 300)
    first = min(
        steps
        for (method, steps), mean in likeness.items()
        if method == "meta-lora" and mean >= likeness["lora-crops", 300]
    )
    assert found.reached.steps == first
    assert found.share == first / 300
    sooner = [v for v in results.variants if v.method != "meta-lora" or v.steps < first]
    (missed,) = paces(replace(results, variants=sooner))
    assert missed.reached is None
    assert missed.likeness.mean < 0


def test_the_report_says_what_was_compared(runs: Path):
    pieces = [piece for piece in pieces_of(runs, SIZES["miniature"], Inputs(people=PEOPLE)) if piece.results.exists()]
    assert [piece.name for piece in pieces] == ["methods", "random"]
    text = write_report(pieces, runs / "report").read_text()
    assert "| the control: a Meta-Down that has learned nothing | 75 | 1 | -0.100 [-0.100, -0.100] |" in text
    assert "How soon is Meta-LoRA as like as LoRA + crops" in text
    assert all(
        (runs / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        for name in ("trade-off", "steps", "sweeps")
    )
    record = read(runs / "random")
    record["embedders"]["faces"]["sha256"] = "0" * 64
    write(runs / "random", record)
    with pytest.raises(UserError, match="cannot be ranked together"):
        write_report(pieces, runs / "report")

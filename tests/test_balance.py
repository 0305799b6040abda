"""Likeness at equal CLIP-T, on results that are made up."""

from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from made_up_results import made_up_run

from bench import reproduce_balance_plot
from bench.balance import main
from bench.reproduce_balance import above_the_curve, curve_of
from bench.reproduce_figures import CLIP_T, R_FACESIM, line, values
from metalora.store.report.reading import read_results
from metalora.store.report.results import Variant


def test_the_balance_is_likeness_above_the_curve_of_lora_with_crops_at_the_same_prompt_score(tmp_path: Path):
    made_up_run(tmp_path / "methods")
    results = read_results(tmp_path / "methods")
    curve = curve_of(results, rank=1)
    assert [v.method for v in curve] == ["none", "lora-crops", "lora-crops"]
    start, middle, _ = ((values(v, R_FACESIM), values(v, CLIP_T)) for v in curve)
    ours = line(results, "meta-lora", 1)[0]

    def moved(likeness: float, prompt: float) -> Variant:
        """A third of the way from the curve's first point to its second, and as far off."""
        images = [
            replace(
                image,
                held_out=start[0][image.identity] * 2 / 3 + middle[0][image.identity] / 3 + likeness,
                clip_t=start[1][image.identity] * 2 / 3 + middle[1][image.identity] / 3 + prompt,
            )
            for image in ours.images
        ]
        return replace(ours, images=images)

    on_it = above_the_curve(moved(0.0, 0.0), curve[:2])
    assert on_it.mean == pytest.approx(0.0, abs=1e-12)
    better = above_the_curve(moved(0.05, 0.0), curve[:2])
    assert better.mean == pytest.approx(0.05)
    assert better.low == pytest.approx(0.05)  # the same for everybody, whatever differs between people
    assert above_the_curve(moved(0.0, 50.0), curve) is None
    low, high = sorted(mean(point[1].values()) for point in (start, middle))
    slope = (mean(middle[0].values()) - mean(start[0].values())) / (mean(middle[1].values()) - mean(start[1].values()))
    shifted = above_the_curve(moved(0.0, (high - low) / 6), curve[:2])
    assert shifted.mean == pytest.approx(-slope * (high - low) / 6)


def test_several_runs_are_told_apart_and_drawn_beside_the_curve(tmp_path: Path, capsys: pytest.CaptureFixture):
    made_up_run(tmp_path / "crops", variants=(("none", None), ("lora-crops", 150), ("lora-crops", 375)))
    made_up_run(tmp_path / "ours", variants=(("meta-lora", 150), ("meta-lora", 375)))
    plot = tmp_path / "balance.png"
    assert main([str(tmp_path / "crops"), str(tmp_path / "ours"), "--plot", str(plot)]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == [
        "| no LoRA",
        "| LoRA + crops, 150 steps, rank 1",
        "| LoRA + crops, 375 steps, rank 1",
        "| ours: Meta-LoRA, 150 steps, rank 1",
        "| ours: Meta-LoRA, 375 steps, rank 1",
    ]
    curve = curve_of(read_results(tmp_path / "crops"), 1)
    expected = above_the_curve(read_results(tmp_path / "ours").variants[1], curve)
    assert rows[6][3].startswith(f"{expected.mean:+.3f} [")
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 7, 8, 15])
def test_no_two_lines_of_a_drawing_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int):
    made_up_run(tmp_path / "methods")
    results, drawn = read_results(tmp_path / "methods"), []
    ours = line(results, "meta-lora", 1)
    finished = reproduce_balance_plot.finished
    monkeypatch.setattr(
        reproduce_balance_plot,
        "finished",
        lambda figure, *more, **words: drawn.append(figure) or finished(figure, *more, **words),
    )
    reproduce_balance_plot.balance_plot(results, [(f"change {number}", v) for number in range(count) for v in ours])
    panels = drawn[0].axes
    named = [axes.get_title() for axes in panels] if len(panels) > 1 else panels[0].get_legend_handles_labels()[1][2:]
    assert named == [f"change {number}" for number in range(count)]
    for axes in panels:
        looks = [(curve.get_color(), curve.get_marker()) for curve in axes.get_lines() if len(curve.get_xdata()) > 0]
        assert len(looks) >= 3
        assert len(set(looks)) == len(looks)


def test_without_a_curve_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture):
    made_up_run(tmp_path / "ours", variants=(("meta-lora", 150),))
    assert main([str(tmp_path / "ours")]) == 1
    assert "no curve of LoRA + crops at rank 1" in capsys.readouterr().err
    assert main([str(tmp_path / "gone")]) == 1
    assert "balance: " in capsys.readouterr().err

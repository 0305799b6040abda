"""One method against another's curve: the distance is the one that was put in, whatever the curve's settings are."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_results import made_up_run, read, write

from metalora.cli import main
from metalora.config import UserError
from metalora.jobs import run
from metalora.jobs.benchmark.frontier import (
    LIKENESS,
    PROMPT,
    Scores,
    Setting,
    above,
    check_comparable,
    frontier,
    undominated,
)
from metalora.store.report.results import read_results

PEOPLE = [f"person {n}" for n in range(24)]


IMAGES = [f"prompt {n} 0" for n in range(6)]


def person_scores(likeness: float, prompt: float, seed: int, spread: float = 0.0) -> tuple[Scores, Scores]:
    """People and images differ much from each other, and little between settings; `spread` more by image."""
    own, luck = random.Random(0), random.Random(seed)
    people = {name: (own.gauss(0, 0.1), own.gauss(0, 1)) for name in PEOPLE}
    images = {name: (own.gauss(0, 0.1) + luck.gauss(0, spread), own.gauss(0, 1)) for name in IMAGES}
    return tuple(
        {
            person: {image: mean + a[axis] + b[axis] + luck.gauss(0, noise) for image, b in images.items()}
            for person, a in people.items()
        }
        for axis, (mean, noise) in enumerate(((likeness, 0.01), (prompt, 0.1)))
    )


# Likeness falls by 0.1 for each point of CLIP-T.
CURVE = [person_scores(0.7 - 0.1 * step, 41 + step, seed=step) for step in range(3)]


@pytest.mark.parametrize("place", [41.3, 42.0, 42.9])
def test_a_point_on_the_curve_is_no_distance_from_it_and_one_above_is_what_was_added(place: float):
    for added in (0.0, 0.05):
        likeness, prompt = person_scores(0.7 - 0.1 * (place - 41) + added, place, seed=9)
        found = above(likeness, prompt, CURVE)
        assert found.mean == pytest.approx(added, abs=0.01)
        assert found.low < added < found.high
        assert (found.low > 0) == (added > 0)
        across = above(prompt, likeness, [(b, a) for a, b in CURVE])  # the same distance, measured along the other axis
        assert across is None or across.mean == pytest.approx(10 * added, abs=0.15)


def test_where_the_curve_does_not_go_there_is_no_distance_and_only_people_with_all_scores_count():
    assert above(*person_scores(0.5, 45, seed=9), CURVE) is None
    assert above(*person_scores(0.5, 42, seed=9), CURVE[:1]) is None
    likeness, prompt = person_scores(0.6, 42, seed=9)
    del likeness[PEOPLE[0]]
    assert above(likeness, prompt, CURVE).count == len(PEOPLE) - 1


def test_an_image_without_a_face_counts_in_no_setting_and_the_interval_is_as_wide_as_prompts_and_noise_disagree():
    likeness, prompt = person_scores(0.6, 42, seed=9)
    before = above(likeness, prompt, CURVE)
    likeness[PEOPLE[0]][IMAGES[0]] = 1e9
    gone = [({**a, PEOPLE[0]: {k: v for k, v in a[PEOPLE[0]].items() if k != IMAGES[0]}}, b) for a, b in CURVE]
    assert above(likeness, prompt, gone).mean == pytest.approx(before.mean, abs=0.01)
    """What differs from image to image for everyone alike is not known better by asking more people."""
    narrow, wide = (above(*person_scores(0.6, 42, seed=9, spread=spread), CURVE) for spread in (0.0, 0.05))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_a_curve_is_made_of_settings_that_no_other_one_beats():
    def setting(label: str, likeness: float, prompt: float) -> Setting:
        return Setting("run", label, label, {LIKENESS: {"a": {"x": likeness}}, PROMPT: {"a": {"x": prompt}}})

    settings = [setting("good", 0.6, 43), setting("beaten", 0.5, 42), setting("other end", 0.4, 44)]
    assert [one.label for one in undominated(settings)] == ["good", "other end"]


def test_the_command_compares_two_runs_and_draws_them(tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in ("ours", "theirs"):
        made_up_run(tmp_path / name)
    plot = tmp_path / "frontier.png"
    command = ["benchmark", "frontier", str(tmp_path / "ours"), "--curve", str(tmp_path / "theirs")]
    assert main([*command, "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    assert "R-FaceSim at equal CLIP-T" in said
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--only", "nobody of this name"]) == 1
    assert "at least 5 are needed" in capsys.readouterr().err


OTHER = "f" * 64
DIFFERENT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "photos": (
        lambda r: r["benchmark"].update(manifest_sha256=OTHER),
        "the manifest's sha256: .*ffffffffffff... in .*second",
    ),
    "prompts": (lambda r: r["benchmark"].update(prompts_sha256=OTHER), "the prompts' sha256"),
    "face embedder": (
        lambda r: r["embedders"]["faces"].update(name="arcface", sha256=OTHER),
        "the face embedder: sface .* in .*first, arcface f",
    ),
    "CLIP": (lambda r: r["embedders"]["clip"].update(sha256=OTHER), "CLIP: ViT-B-32"),
    "fewer people": (
        lambda r: (
            r["benchmark"]["identities"].pop(),
            [v["images"].clear() for v in r["variants"]],
        ),
        "the people: 6 .* in .*first, 5 ",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_runs_that_measured_otherwise_are_refused_with_what_differs(name: str, tmp_path: Path):
    change, message = DIFFERENT[name]
    runs = [made_up_run(tmp_path / name, 6, 2, 1, (("lora", 375),)) for name in ("first", "second")]
    record = read(runs[1])
    change(record)
    write(runs[1], record)
    with pytest.raises(UserError, match=message):
        run(frontier(runs[:1], runs[1:], [], None))


def test_a_run_without_clip_may_be_compared_by_faces(tmp_path: Path):
    runs = [made_up_run(tmp_path / name, 6, 2, 1, (("lora", 375),)) for name in ("first", "second")]
    record = read(runs[1])
    record["embedders"]["clip"] = None
    write(runs[1], record)
    check_comparable({path.name: read_results(path) for path in runs})

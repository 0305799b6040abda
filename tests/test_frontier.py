"""One method against another's curve: the distance is the one that was put in, whatever the curve's settings are."""

import random
from pathlib import Path

import pytest
from made_up_results import made_up_run

from metalora.cli import main
from metalora.jobs.benchmark.frontier import LIKENESS, PROMPT, Setting, undominated
from metalora.measure.frontier import Scores, above

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


def test_where_the_curve_does_not_go_there_is_no_distance():
    assert above(*person_scores(0.5, 45, seed=9), CURVE) is None
    assert above(*person_scores(0.5, 42, seed=9), CURVE[:1]) is None


def test_only_people_with_all_scores_count():
    likeness, prompt = person_scores(0.6, 42, seed=9)
    del likeness[PEOPLE[0]]
    assert above(likeness, prompt, CURVE).count == len(PEOPLE) - 1


def test_an_image_without_a_face_in_one_setting_is_left_out_of_all():
    likeness, prompt = person_scores(0.6, 42, seed=9)
    before = above(likeness, prompt, CURVE)
    likeness[PEOPLE[0]][IMAGES[0]] = 1e9
    gone = [({**a, PEOPLE[0]: {k: v for k, v in a[PEOPLE[0]].items() if k != IMAGES[0]}}, b) for a, b in CURVE]
    assert above(likeness, prompt, gone).mean == pytest.approx(before.mean, abs=0.01)


def test_the_interval_is_as_wide_as_prompts_and_noise_disagree():
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

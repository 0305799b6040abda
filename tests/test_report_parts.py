"""Parts of a report: what is said first, what is drawn where, which images are shown. The results are made up."""

import base64
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_results import Page, made_up_run, read, write
from PIL import Image

from metalora.config import UserError
from metalora.jobs.benchmark.results import figure
from metalora.store.report import page, pictures
from metalora.store.report.charts import COLOURS, SHAPES, Chart, Row, interval_chart, scatter
from metalora.store.report.page import differences, render
from metalora.store.report.pictures import SIZES, choose, extremes, read_small, shown_people, shown_variants, thumbnails
from metalora.store.report.results import Figure, Results, read_results
from metalora.store.report.scores import number, ranked, share, verdict

TWO = (("meta-lora", 375), ("lora-crops", 375))
NUMBERS = st.floats(-1e3, 1e3, allow_subnormal=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_run(tmp_path_factory.mktemp("made_up"), 6, 2, 2, TWO)


def with_difference(folder: Path, tmp_path: Path, low: float, high: float, **other: Any) -> Results:
    """Meta-LoRA before LoRA + crops by 0.05, with this interval."""
    record = read(folder)
    for variant, mean in zip(record["variants"], (0.60, 0.55), strict=True):
        variant["summary"]["r_facesim"]["left out"] = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "count": 6}
    pair = {"one": "lora-crops-375-r1", "other": "meta-lora-375-r1", "score": "r_facesim", "misses": "left out"}
    record["comparisons"] = [{**pair, "mean": -0.05, "low": -high, "high": -low, "count": 6}]
    record["variants"][0] |= other
    write(tmp_path, record)
    return read_results(tmp_path)


def said(results: Results) -> str:
    return Page(render("headline.html", results=results)).text


def test_the_headline_says_who_is_first_by_how_much_and_whether_that_is_more_than_chance(folder: Path, tmp_path: Path):
    results = with_difference(folder, tmp_path, 0.01, 0.09)
    text = said(results)
    assert "Meta-LoRA, 375 steps, rank 1 makes the faces most like the person: R-FaceSim 0.600" in text
    assert "(95% interval 0.500 to 0.700), over 6 people. Next is LoRA + crops, 375 steps, rank 1 with 0.550." in text
    assert "the difference is 0.050 (0.010 to 0.090): more than chance." in text
    unsure = with_difference(folder, tmp_path, -0.01, 0.11)
    assert "0.050 (−0.010 to 0.110): these people do not tell the two apart." in said(unsure)  # noqa: RUF001
    assert "more than chance" not in said(unsure)
    for found, told in ((results, "yes"), (unsure, "no")):
        (pair,) = differences(found)
        assert (pair.one, pair.mean, verdict(pair)) == ("meta-lora-375-r1", 0.05, told)


def test_who_leaves_images_out_does_not_come_first_and_who_is_first_only_without_the_misses_is_said(
    folder: Path, tmp_path: Path
):
    results = with_difference(folder, tmp_path, 0.01, 0.09, missing=["external/hard.png"])
    assert [variant.method for variant in ranked(results, "r_facesim")] == ["lora-crops", "meta-lora"]
    text = said(results)
    assert text.startswith("LoRA + crops")
    assert "Not ranked: Meta-LoRA, 375 steps, rank 1, with 1 image missing." in text
    results = with_difference(folder, tmp_path, 0.01, 0.09)
    results.variants[0].summary["r_facesim"]["as zero"] = figure({name: 0.1 for name in "abcdef"})
    assert "If images without a face count as 0, LoRA + crops, 375 steps, rank 1 is first instead." in said(results)


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [
        (0.12345, 3, False, "0.123"),
        (-0.05, 2, False, "\u22120.05"),
        (-0.0001, 3, True, "+0.000"),
        (None, 3, False, "—"),
    ],
)
def test_numbers_have_a_real_minus_and_never_minus_zero(value: float | None, digits: int, signed: bool, text: str):
    assert number(value, digits, signed) == text


def test_a_share_is_all_only_when_it_is_all():
    assert [share(value) for value in (1.0, 0.99999, 0.5, None)] == ["100.0%", "99.9%", "50.0%", "—"]


def words_of(chart: Chart) -> list[str]:
    """All that is to be read on it."""
    svg = ElementTree.fromstring(base64.b64decode(chart.uri.split(",")[1]))
    return ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.filterwarnings("error")
def test_letters_of_any_script_are_drawn_without_a_warning():
    chart = interval_chart("axis", [Row("漢字", Figure(0.2, 0.1, 0.3, 6))])
    assert "漢字" in words_of(chart)
    assert "漢字: 0.200, 0.100 to 0.300" in chart.said


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5), st.booleans())
def test_any_numbers_can_be_drawn(triples: list[tuple[float, float, float]], sure: bool):
    rows = [
        Row("a label minus another", Figure(middle, low if sure else None, high if sure else None, 6))
        for low, middle, high in map(sorted, triples)
    ]
    chart = interval_chart("axis", rows, [(0.0, "floor"), (0.1, "ceiling")])
    assert {"floor: 0.000", "ceiling: 0.100"} <= set(words_of(chart))
    assert b"nan" not in base64.b64decode(chart.uri.split(",")[1]).lower()


def test_the_frontier_names_each_method_once_and_has_the_steps_at_its_points(tmp_path: Path):
    results = read_results(made_up_run(tmp_path, 6, 2, 2))
    words = words_of(scatter(results))
    for name in ("Meta-LoRA", "LoRA + crops", "LoRA, whole photo", "no LoRA"):
        assert words.count(name) == 1
    assert words.count("150") == 2
    assert words.count("375") == 3


def test_a_method_has_a_look_of_its_own_and_its_name_is_readable():
    looks = {(COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]) for index in range(12)}
    assert len(looks) == 12
    style = (Path(page.__file__).parent / "templates" / "page.css").read_text()
    assert all(f".m{index} {{ color: {colour}; }}" in style for index, colour in enumerate(COLOURS))


@pytest.mark.parametrize("most", [1, 4, 100])
def test_no_image_is_shown_as_best_and_as_worst(folder: Path, tmp_path: Path, most: int):
    record = read(folder)
    for variant in record["variants"]:
        variant["images"] = [image for image in variant["images"] if image["faces"]][:7]  # an odd number
    write(tmp_path, record)
    for variant in read_results(tmp_path).variants:
        found = extremes(variant, most)
        assert not {image.path for image in found.best} & {image.path for image in found.worst}
        assert min(image.held_out or 0 for image in found.best) > max(image.held_out or 0 for image in found.worst)


def test_the_choice_is_of_the_same_prompt_for_all_variants_and_within_bounds(tmp_path: Path):
    methods = tuple((method, steps) for method in ("meta-lora", "lora", "lora-crops") for steps in (50, 100, 200, 375))
    results = read_results(made_up_run(tmp_path, 6, 5, 1, methods))
    variants = shown_variants(results)
    assert len(variants) == pictures.MOST_VARIANTS
    assert {variant.method for variant in variants if variant.steps == 375} == {"meta-lora", "lora", "lora-crops"}
    chosen = choose(results)
    assert len(chosen.strips) == len(shown_people(results)) == 6
    for strip in chosen.strips:
        assert len(strip.rows) == pictures.MOST_PROMPTS
        for prompt, cells in strip.rows:
            assert [variant for variant, _ in cells] == variants
            assert {(image.prompt, image.identity) for _, image in cells if image} == {
                (prompt.id, strip.person.identity)
            }
    assert len(chosen.images) <= pictures.MOST_PICTURES + pictures.EXTREMES + pictures.WITHOUT_A_FACE


def test_thumbnails_shrink_until_they_fit_the_budget_repeats_included():
    drawn = random.Random(0)
    noise = {str(i): Image.frombytes("RGB", (160, 160), drawn.randbytes(160 * 160 * 3)) for i in range(4)}
    large = thumbnails(noise, [*noise])
    assert large.side == SIZES[0][0]
    one = sum(map(len, large.uris.values()))
    assert thumbnails(noise, [*noise, *noise], budget=one).side < large.side
    with pytest.raises(UserError, match="do not fit"):
        thumbnails(noise, [*noise], budget=100)


def test_a_picture_is_shown_only_if_it_is_the_scored_one(folder: Path, tmp_path: Path):
    image = read_results(folder).variants[0].images[0]
    assert isinstance(read_small(folder / image.path, image.sha256), Image.Image)
    assert read_small(folder / image.path, "0" * 64) == "changed since it was scored"
    assert read_small(tmp_path / "none.png") == "not in the run's folder"
    (tmp_path / "text.png").write_text("no picture")
    assert read_small(tmp_path / "text.png") == "cannot be read"

"""Laws of the crop boxes, and which crops of a real photo are taken."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import CropConfig, PersonalizeConfig, UserError
from metalora.jobs import run
from metalora.jobs.crops import write_crops
from metalora.jobs.personalize import plan_photos
from metalora.jobs.photos import plan_photo
from metalora.measure import load_faces
from metalora.method.crops import (
    RATIOS,
    SCALES,
    Box,
    fitting_size,
    grown,
    plan,
    seen_in,
    training_size,
    trimmed,
    upscale,
)
from metalora.store.images import read_photo


@st.composite
def faces_in_photos(draw: st.DrawFn) -> tuple[Box, int, int]:
    width, height = draw(st.integers(16, 6000)), draw(st.integers(16, 6000))
    left, top = draw(st.floats(0, width - 2)), draw(st.floats(0, height - 2))
    right, bottom = draw(st.floats(left + 1, width)), draw(st.floats(top + 1, height))
    return Box(left, top, right, bottom), width, height


@given(faces_in_photos())
def test_every_box_is_whole_inside_the_photo_around_the_face_and_of_a_known_ratio(case: tuple[Box, int, int]):
    face, width, height = case
    boxes = plan(face, width, height)
    assert 1 <= len(boxes) <= 25
    assert len({(box.width, box.height) for box in boxes}) == len(boxes)
    for box in boxes:
        assert all(edge == int(edge) for edge in box)
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height
        x, y = face.center
        assert box.left - 0.5 <= x <= box.right + 0.5
        assert box.top - 0.5 <= y <= box.bottom + 0.5
        assert any(abs(box.width * h - box.height * w) <= (w + h) / 2 for w, h in RATIOS), box


@given(faces_in_photos())
def test_a_crop_is_as_large_as_asked_or_as_large_as_the_photo_allows(case: tuple[Box, int, int]):
    face, width, height = case
    asked = 2.5 * max(face.width, face.height)
    for ratio in RATIOS:
        size = fitting_size(ratio, asked, width, height)
        assert min(size) == max(1, round(asked)) or size[0] == width or size[1] == height


def test_crops_by_hand_of_a_small_face_one_at_the_border_and_one_that_fills_the_photo():
    boxes = plan(Box(1900, 1400, 2000, 1520), 4000, 3000)
    assert len(boxes) == 25
    assert boxes[0] == Box(1790, 1370, 2110, 1550)  # 16:9, shorter side 120 x 1.5
    assert {box.center for box in boxes if box.width % 2 == 0 == box.height % 2} == {(1950, 1460)}
    assert plan(Box(0, 0, 100, 100), 1000, 1000)[10] == Box(0, 0, 150, 150)
    boxes = plan(Box(0, 0, 300, 400), 300, 400)
    assert [(box.width, box.height) for box in boxes] == [(300, 169), (300, 225), (300, 300), (300, 400), (225, 400)]


@given(st.floats(0.3, 3.0), st.integers(64, 2048))
def test_a_training_size_has_about_the_asked_pixels_and_ratio(ratio: float, resolution: int):
    width, height = training_size(ratio, resolution, 16)
    assert width % 16 == height % 16 == 0
    assert abs(width - resolution * ratio**0.5) <= 8
    assert abs(height - resolution / ratio**0.5) <= 8


def test_boxes_are_trimmed_seen_in_a_crop_and_grown_around_their_centre():
    box = trimmed(Box(10, 10, 110, 60), 1.0)
    assert box == Box(35, 10, 85, 60)
    assert upscale(box, (100, 100)) == 2.0
    assert seen_in(Box(30, 40, 50, 60), Box(10, 20, 110, 220), (50, 100)) == Box(10, 10, 20, 20)
    assert seen_in(Box(0, 0, 20, 20), Box(10, 10, 20, 20), (10, 10)) == Box(-10, -10, 10, 10)
    assert grown(Box(10, 20, 30, 60), 1.5) == Box(5, 10, 35, 70)


def test_without_close_ups_the_wider_crops_stay_as_they_were_but_none_is_tighter_than_the_face(portrait: Path):
    faces = load_faces()
    boxes = {
        tightest: {crop.box for crop in plan_photo(portrait, CropConfig(tightest=tightest), faces, 16).crops}
        for tightest in (*SCALES, 2.2)
    }
    assert boxes[4.5] < boxes[2.5] < boxes[1.5]
    assert boxes[2.2] == boxes[2.5]
    face = faces.find(read_photo(portrait))[0].box
    side = max(face.width, face.height)
    removed = boxes[1.5] - boxes[2.5]
    assert all(min(box.width, box.height) < 2.5 * side for box in removed)
    with pytest.raises(UserError, match="tightest"):
        CropConfig(tightest=0.5)


def test_square_crops_are_the_square_ones_of_the_five(portrait: Path):
    every, square = (
        [crop.box for crop in plan_photo(portrait, CropConfig(learn_from=source), load_faces(), 16).crops]
        for source in ("crops", "square")
    )
    assert square == [box for box in every if box.width == box.height]
    assert 1 < len(square) < len(every)


def test_the_whole_photo_is_learned_from_by_any_method_that_asks_for_it(portrait: Path, tiny: PipelineBackbone):
    crops = CropConfig(resolution=64, learn_from="whole")
    _, height, width = read_photo(portrait).shape
    for config in (PersonalizeConfig(method="meta-lora"), PersonalizeConfig(method="lora", background_weight=0.1)):
        (photo,) = plan_photos([portrait], config, crops, tiny, "sface")
        assert [crop.box for crop in photo.crops] == [Box(0, 0, width, height)]
        assert (photo.face is not None) == (config.background_weight < 1)
    assert plan_photo(portrait, crops, load_faces(), 16).crops == photo.crops


# The face is 90 x 113 pixels: 16:9, 4:3, 1:1, 3:4, 9:16, each at 1.5, 2, 2.5, ... times 113 until the photo ends.
# 4.5 times is larger than the photo, whose closest sizes are taken at 3.5 already, except for the square.
GOLDEN = [
    *[(74, 34, 375, 203), (24, 6, 425, 232), (0, 0, 501, 282), (0, 0, 512, 288)],
    *[(111, 34, 337, 203), (74, 6, 375, 232), (36, 0, 412, 282), (0, 0, 512, 384)],
    *[(140, 34, 309, 203), (111, 6, 337, 232), (83, 0, 365, 282), (27, 0, 422, 395), (0, 0, 508, 508)],
    *[(140, 6, 309, 232), (111, 0, 337, 301), (83, 0, 365, 376), (32, 0, 416, 512)],
    *[(140, 0, 309, 301), (111, 0, 337, 401), (83, 0, 365, 501), (80, 0, 368, 512)],
]


def test_the_golden_crops_of_the_astronaut(portrait: Path, tmp_path: Path):
    result = run(write_crops(portrait, tmp_path, CropConfig(resolution=128)))
    boxes = [tuple(int(edge) for edge in crop.box) for crop in result.planned.crops]
    assert boxes == GOLDEN
    assert len(list(tmp_path.glob("crop-*.png"))) == len(GOLDEN)

"""Which crops of a real photo are taken: with and without close-ups, of five aspect ratios or square; or none."""

from pathlib import Path

import pytest

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import CropConfig, PersonalizeConfig, UserError
from metalora.jobs import run
from metalora.jobs.crops import write_crops
from metalora.jobs.personalize import plan_photos
from metalora.jobs.photos import plan_photo
from metalora.measure import load_faces
from metalora.method.crops import SCALES, Box
from metalora.store.images import read_photo


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

"""A photo on its side without an EXIF note is found by its face, said, and turned where that is asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from photos import empty_wall, portrait
from runs import CONFIG, personalized

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import CropConfig, Phase, UserError
from metalora.jobs import run
from metalora.jobs.crops import write_crops
from metalora.jobs.personalize import plan_photos
from metalora.jobs.photos import plan_photo, quarter_turns
from metalora.measure import load_faces
from metalora.store.cache import Cache
from metalora.store.images import read_photo
from metalora.store.pictures import save_image

DATA = Path(__file__).parents[1] / "metalora" / "data"
PHOTOS = [
    DATA / "astronaut.jpg",
    *sorted((DATA / "portraits").glob("*.jpg")),
    *sorted((DATA / "mini_benchmark" / "photos").glob("*.jpg"))[::16],
]


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
@pytest.mark.parametrize("turns", range(4))
def test_the_four_ways_of_a_portrait_are_told_apart(path: Path, turns: int):
    assert quarter_turns(read_photo(path).rot90(turns, (1, 2))) == -turns % 4


def test_a_photo_without_a_face_is_not_turned():
    for turns in range(4):
        assert quarter_turns(empty_wall(300, 200).rot90(turns, (1, 2))) == 0
    assert quarter_turns(torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))) == 0


@pytest.fixture(params=[1, 2, 3])
def turned(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save_image(portrait().rot90(request.param, (1, 2)), tmp_path / "turned.png")
    return tmp_path / "turned.png"


@pytest.mark.parametrize("method", ["meta-lora", "lora"])
def test_a_turned_photo_is_refused_by_every_method_and_nothing_is_written(
    turned: Path, tmp_path: Path, tiny: PipelineBackbone, warm_cache: Cache, method: str
):
    with pytest.raises(UserError, match=r"turned\.png is turned: .* after (a quarter|half a) turn.*--turn auto"):
        personalized(tiny, warm_cache, turned, tmp_path / "out" / "a.safetensors", replace(CONFIG, method=method))
    assert not (tmp_path / "out").exists()


def test_auto_plans_the_crops_of_the_upright_photo_and_keep_those_of_the_turned_one(
    turned: Path, tiny: PipelineBackbone
):
    faces = load_faces()
    upright = plan_photo(DATA / "astronaut.jpg", CropConfig(), faces, 16)
    mended = plan_photo(turned, CropConfig(turn="auto"), faces, 16)
    assert mended.digest == upright.digest
    assert mended.crops == upright.crops
    assert mended.turned
    assert not upright.turned
    kept = plan_photo(turned, CropConfig(turn="keep", face="largest"), faces, 16)
    assert torch.equal(kept.photo, read_photo(turned))
    (whole,) = plan_photos([turned], CONFIG, CropConfig(learn_from="whole", turn="auto"), tiny, "sface")
    assert whole.digest == upright.digest


def test_what_was_turned_is_said(turned: Path, tmp_path: Path):
    said: list[object] = []
    run(write_crops(turned, tmp_path / "crops", CropConfig(resolution=64, turn="auto")), said.append)
    assert any("turned: turned.png by" in shown.text for shown in said if isinstance(shown, Phase))

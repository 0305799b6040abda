"""Images are written whole or not at all, and what is cut, laid out and drawn is where it should be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import close, empty_wall, portrait, small_picture
from PIL import Image

from metalora.config import UserError
from metalora.method.crops import Box
from metalora.store.images import read_photo, resize_crop, to_pil, to_tensor
from metalora.store.pictures import draw_boxes, grid, read_image_metadata, save_image


@pytest.fixture
def picture() -> Image.Image:
    return small_picture()


@pytest.mark.parametrize("name", ["a.png", "new/folder/a.png"])
def test_a_saved_image_and_its_metadata_are_read_back(tmp_path, picture, name):
    metadata = {"metalora": '{"prompt": "a photo of a woman, größer 漢"}', "empty": ""}
    save_image(to_tensor(picture), tmp_path / name, metadata)
    assert torch.equal(read_photo(tmp_path / name), to_tensor(picture))
    assert read_image_metadata(tmp_path / name) == metadata


def test_saving_under_an_unknown_ending_says_which_ones_are_known(tmp_path):
    with pytest.raises(UserError, match=r"\.png or \.jpg"):
        save_image(empty_wall(8, 8), tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())


boxes = st.tuples(st.floats(0, 500), st.floats(0, 500), st.floats(2, 512), st.floats(2, 512)).map(
    lambda b: Box(b[0], b[1], min(b[0] + b[2], 512), min(b[1] + b[3], 512))
)


@settings(max_examples=20, deadline=None)
@given(boxes, st.sampled_from([(32, 32), (48, 16), (96, 128)]))
def test_a_crop_is_what_resizing_the_whole_photo_would_give(box, size):
    photo = portrait()
    expected = to_tensor(to_pil(photo).resize(size, Image.Resampling.LANCZOS, box=box))
    assert close(resize_crop(photo, box, *size), expected, levels=0.5)  # Pillow rounds between its two passes


def test_a_grid_holds_every_image_unharmed_and_stays_a_page_with_room_for_captions(picture):
    images = [torch.full((3, 200, 300), value) for value in (0.0, 0.25, 0.5)] + [torch.full((3, 300, 200), 0.75)]
    page = grid(images, 3, ["one", "two", "three", "four"])
    for image in images:
        assert ((page - image[0, 0, 0]).abs().amax(0) < 0.003).sum() > 0.97 * image.shape[1] * image.shape[2]
    assert page.shape[2] < 3 * 300 + 4 * 40
    assert grid([torch.zeros(3, 1360, 1360)] * 5, 5).shape[2] < 2600
    assert grid([torch.zeros(3, 32, 32)], 5, ["a caption that must be readable"]).shape[2] >= 192


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (3000, 2000)])
def test_boxes_are_drawn_where_they_are_on_photos_of_any_size(size):
    width, height = size
    photo = torch.zeros(3, height, width)
    drawn = draw_boxes(photo, [Box(width * 0.25, height * 0.5, width * 0.5, height * 0.75), Box(0, 0, width, height)])
    assert max(drawn.shape[1:]) in (640, 2048)
    colored = drawn.amax(0) > 0.5
    rows, columns = drawn.shape[1], drawn.shape[2]
    assert colored[round(rows * 0.6), round(columns * 0.25)]
    assert colored[round(rows * 0.75) - 1, round(columns * 0.4)]
    assert not colored[round(rows * 0.6), round(columns * 0.35)]

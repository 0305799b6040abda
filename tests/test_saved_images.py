"""Images are written whole or not at all, what is drawn is in its place; folders list what the decoder reads."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import close, empty_wall, portrait, small_picture
from PIL import Image

from metalora.config import UserError
from metalora.method.crops import Box
from metalora.store.folders import pictures_in, skipped
from metalora.store.identities import read_identities, skipped_of
from metalora.store.images import endings, read_photo, resize_crop, to_pil, to_tensor
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


ALWAYS = {".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm"}


def test_a_folder_lists_what_the_decoder_reads_under_every_ending(tmp_path: Path):
    assert endings() >= ALWAYS
    Image.init()
    written = set()
    for ending in endings():
        format = Image.registered_extensions().get(ending, "JPEG")
        if format in Image.SAVE and ending != ".pfm":
            picture = small_picture().convert("L" if ending in (".pgm", ".pfm") else "1" if ending == ".pbm" else "RGB")
            picture.save(tmp_path / f"a{ending.upper()}", format)
            written.add(tmp_path / f"a{ending.upper()}")
    assert set(pictures_in(tmp_path)) == written
    for path in written:
        assert read_photo(path).shape == (3, 48, 64)
    assert skipped([tmp_path]) is None


def test_what_is_no_picture_or_no_folder_is_named_and_captions_and_hidden_files_are_not(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    endings.cache_clear()
    small_picture().save(tmp_path / "1.jpg")
    for name in ("1.txt", ".DS_Store", "2.txt", "3.heic", "4.NEF", "5.mov"):
        (tmp_path / name).touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in pictures_in(tmp_path)] == ["1.jpg"]
    sentence = skipped([tmp_path])
    assert sentence.startswith("6 entries are skipped")
    for name in ("2.txt", "3.heic", "4.NEF", "5.mov", "old", "folder.jpg"):
        assert name in sentence
    assert "1.txt" not in sentence
    assert ".DS_Store" not in sentence
    assert "pip install pillow-heif" in sentence
    assert "Develop camera raw" in sentence
    with pytest.raises(UserError, match="is not a folder"):
        pictures_in(tmp_path / "gone")


def test_a_person_of_whom_no_photo_is_read_is_not_dropped_in_silence(tmp_path: Path):
    for name in ("ada/1.avif", "bob/1.jpg", "cleo/1.xyz"):
        (tmp_path / name).parent.mkdir()
        small_picture().save(tmp_path / name, "AVIF" if name.endswith("avif") else "JPEG")
    with pytest.raises(UserError, match=r"cleo has no photo that is read: .*1\.xyz"):
        read_identities(tmp_path)
    (tmp_path / "cleo" / "1.xyz").rename(tmp_path / "cleo" / "1.jpg")
    (tmp_path / "stray.jpg").touch()
    (tmp_path / "bob" / "notes.pdf").touch()
    assert [one.name for one in read_identities(tmp_path)] == ["ada", "bob", "cleo"]
    assert "2 entries are skipped" in skipped_of(tmp_path)

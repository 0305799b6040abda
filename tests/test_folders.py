"""Folders of photos: one list of formats, made from what the decoder reads, and a word on what is left out."""

import sys
from pathlib import Path

import pytest
from photos import small_picture
from PIL import Image

from metalora.config import UserError
from metalora.store.folders import pictures_in, skipped
from metalora.store.identities import read_identities, skipped_of
from metalora.store.images import endings, read_photo

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

"""Rendered people as stage 1 reads them: whose photos are written, how, and what the manifest says of them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from metalora.store.identities import Identity, read_identities
from tools.miniature import export_people
from tools.miniature.captions import describe, mirrored
from tools.miniature.people import person
from tools.miniature.photo import photo

PEOPLE, PHOTOS = 4, 3  # of every test's shards


def picture(number: int, index: int) -> np.ndarray:
    """A smooth one [32, 32, 3], another for each photo."""
    down, right = np.mgrid[:32, :32] * 6
    return np.stack([down, right, np.full_like(down, 40 * number + 10 * index)], -1).astype(np.uint8)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two, of two people each, as `render` writes them."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard, numbers in enumerate((range(2), range(2, PEOPLE))):
        every = [(number, index) for number in numbers for index in range(PHOTOS)]
        captions = [json.dumps(photo(person(number), index).attributes) for number, index in every]
        owners, pictures = [number for number, _ in every], [picture(*one) for one in every]
        np.savez(folder / f"{shard:05d}.npz", photos=pictures, people=owners, captions=captions)
    return folder


def exported(monkeypatch: pytest.MonkeyPatch, shards: Path, *flags: object) -> dict[str, Identity]:
    """What `metalora meta-train` reads of what the command wrote."""
    out = shards.parent / "people"
    monkeypatch.setattr(sys, "argv", ["export_people", "--shards", str(shards), "--out", str(out), *map(str, flags)])
    export_people.main()
    return {one.name: one for one in read_identities(out / "people.jsonl")}


def test_everyone_is_written_as_rendered_with_captions_of_the_photo_and_of_its_mirror_image(monkeypatch, shards):
    people = exported(monkeypatch, shards)
    assert sorted(people) == ["man-1", "man-3", "woman-0", "woman-2"]
    for number in range(PEOPLE):
        who = people[f"{person(number).kind}-{number}"]
        assert (who.kind, len(who.photos)) == (person(number).kind, PHOTOS)
        for index, one in enumerate(who.photos):
            said = photo(person(number), index).attributes
            assert (one.caption, one.mirrored_caption) == (describe(said), describe(mirrored(said)))
            assert np.array_equal(np.asarray(Image.open(one.path)), picture(number, index))


def test_the_first_people_and_photos_alone_as_jpegs_near_to_them_in_colour_at_full_resolution(monkeypatch, shards):
    (shards / "00002.npz").write_bytes(b"no shard")  # of nobody who is wanted
    sizes = []
    for quality in (20, 90):
        people = exported(monkeypatch, shards, "--people", 3, "--photos", 2, "--jpeg", quality)
        assert {name: len(one.photos) for name, one in people.items()} == {"woman-0": 2, "man-1": 2, "woman-2": 2}
        sizes.append(people["woman-2"].photos[1].path.stat().st_size)
    with Image.open(people["woman-2"].photos[1].path) as file:
        assert (file.format, JpegImagePlugin.get_sampling(file)) == ("JPEG", 0)  # 0: 4:4:4
        assert np.abs(np.asarray(file).astype(int) - picture(2, 1)).mean() < 2
    assert sizes[0] < sizes[1]
    assert len(list((shards.parent / "people").rglob("*.jpg"))) == 6


def test_a_folder_without_shards_is_refused(monkeypatch, tmp_path):
    (tmp_path / "shards").mkdir()
    with pytest.raises(SystemExit, match="holds no shards"):
        exported(monkeypatch, tmp_path / "shards")

"""The people of the miniature world: who they are, their photos and captions; and as stage 1 reads them."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from metalora.store.identities import Identity, read_identities
from tools.miniature import captions, export_people, people
from tools.miniature.captions import describe, mirrored
from tools.miniature.check_people import recognition
from tools.miniature.people import SPLITS, person
from tools.miniature.photo import photo


def test_the_people_of_this_world_stay_who_they_are_and_others_are_others():
    """Weights are trained on them and figures measured on them: a change here makes another world."""
    who = person(SPLITS["test"].first)
    assert (who.kind, who.hair.style, who.hair.colour_name) == ("woman", "fringed", "grey")
    assert who.shape["nose-hump-incr"] == pytest.approx(-0.3281367658)
    assert who.painted["skin"] == pytest.approx([0.5684026646, 0.3314589300, 0.1911993600], abs=1e-6)
    assert photo(who, 0).yaw == pytest.approx(19.871999629)
    assert captions.describe(photo(who, 0).attributes).endswith("brown t-shirt, blue studio background, soft light")
    assert not np.array_equal(person(7).painted["skin"], person(9).painted["skin"])
    assert photo(person(7), 3).yaw != photo(person(7), 4).yaw


def test_no_person_is_in_two_splits_and_each_has_as_many_women_as_men():
    for one, other in itertools.combinations(SPLITS.values(), 2):
        assert not set(one.numbers) & set(other.numbers)
    for split in SPLITS.values():
        kinds = [people.KINDS[number % 2] for number in split.numbers]
        assert kinds.count("woman") == kinds.count("man")
        assert [person(number).kind for number in split.numbers[:4]] == kinds[:4]


@pytest.mark.parametrize("number", range(0, 40, 3))
def test_a_caption_says_the_attributes_and_nothing_else(number):
    attributes = photo(person(number), 0).attributes
    assert captions.understand(captions.describe(attributes)) == attributes
    assert set(captions.describe(attributes).replace(",", "").split()) <= set(captions.VOCABULARY)


def test_a_caption_says_what_is_given_in_phrases_that_mean_one_thing_each():
    caption = captions.describe({"kind": "woman", "background": "blue room"})
    assert caption == "a photo of a woman, blue room background"
    with pytest.raises(ValueError, match="riding a horse"):
        captions.understand("a photo of a man, riding a horse")
    phrases = [phrase for values in captions.PHRASES.values() for phrase in values.values()]
    assert len(phrases) == len(set(phrases))
    attributes = {"kind": "man", "turn": "left", "light": "soft"}
    assert captions.mirrored(attributes) == {**attributes, "turn": "right"}
    assert captions.mirrored(captions.mirrored(attributes)) == attributes


def test_the_head_turns_the_way_the_caption_says():
    for number in range(30):
        one = photo(person(number), 1)
        assert {"left": one.yaw < -10, "right": one.yaw > 10, "front": abs(one.yaw) < 8}[one.attributes["turn"]]


def test_recognition_of_known_embeddings():
    ada, bob = [np.array([1.0, 0.0]), np.array([0.6, 0.8])], [np.array([0.0, 1.0]), np.array([0.8, 0.6])]
    found = recognition([ada, [], bob])  # nobody's face was found on the photos of the one between
    assert (found["genuine_mean"], found["impostor_mean"], found["auc"]) == (0.6, 0.64, 0.25)
    assert found["rank_1"] == 0.5  # the second photo of each is nearer to the other


needs_rendering = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("anny", "moderngl", "scipy", "cv2")),
    reason="rendering needs anny, moderngl, scipy and OpenCV: pip install -r tools/miniature/requirements.txt",
)


@needs_rendering
def test_a_person_is_rendered_as_the_benchmark_shows_them(tmp_path):
    from tools.miniature.renderer import Renderer

    try:
        renderer = Renderer(tmp_path)
    except Exception as error:  # noqa: BLE001 - whatever a machine without EGL raises
        pytest.skip(f"no OpenGL here: {error}")
    who = person(SPLITS["test"].first + 1)
    figure, one = renderer.figure(who), photo(who, 1)
    picture = renderer.render(who, figure, one)
    assert np.array_equal(picture, renderer.render(who, figure, one))
    shipped = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark" / "photos" / f"{who.number}-1.jpg"
    assert (
        np.abs(picture - np.asarray(Image.open(shipped), float)).mean() < 2
    )  # JPEG; another renderer rounds otherwise
    other = person(SPLITS["test"].first)
    assert np.abs(picture - renderer.render(other, renderer.figure(other), one).astype(float)).mean() > 4


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

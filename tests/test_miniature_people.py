"""The people of the miniature world: who they are, what their photos are, and what captions say about them."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.miniature import captions, people, photo
from tools.miniature.check_people import recognition
from tools.miniature.people import SPLITS, person


def test_the_people_of_this_world_stay_who_they_are_and_others_are_others():
    """Weights are trained on them and figures measured on them: a change here makes another world."""
    who = person(SPLITS["test"].first)
    assert (who.kind, who.hair.style, who.hair.colour_name) == ("woman", "fringed", "grey")
    assert who.shape["nose-hump-incr"] == pytest.approx(-0.3281367658)
    assert who.painted["skin"] == pytest.approx([0.5684026646, 0.3314589300, 0.1911993600], abs=1e-6)
    assert photo.photo(who, 0).yaw == pytest.approx(19.871999629)
    assert captions.describe(photo.photo(who, 0).attributes).endswith(
        "brown t-shirt, blue studio background, soft light"
    )
    assert not np.array_equal(person(7).painted["skin"], person(9).painted["skin"])
    assert photo.photo(person(7), 3).yaw != photo.photo(person(7), 4).yaw


def test_no_person_is_in_two_splits_and_each_has_as_many_women_as_men():
    for one, other in itertools.combinations(SPLITS.values(), 2):
        assert not set(one.numbers) & set(other.numbers)
    for split in SPLITS.values():
        kinds = [people.KINDS[number % 2] for number in split.numbers]
        assert kinds.count("woman") == kinds.count("man")
        assert [person(number).kind for number in split.numbers[:4]] == kinds[:4]


@pytest.mark.parametrize("number", range(0, 40, 3))
def test_a_caption_says_the_attributes_and_nothing_else(number):
    attributes = photo.photo(person(number), 0).attributes
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
        one = photo.photo(person(number), 1)
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
    figure, one = renderer.figure(who), photo.photo(who, 1)
    picture = renderer.render(who, figure, one)
    assert np.array_equal(picture, renderer.render(who, figure, one))
    shipped = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark" / "photos" / f"{who.number}-1.jpg"
    assert (
        np.abs(picture - np.asarray(Image.open(shipped), float)).mean() < 2
    )  # JPEG; another renderer rounds otherwise
    other = person(SPLITS["test"].first)
    assert np.abs(picture - renderer.render(other, renderer.figure(other), one).astype(float)).mean() > 4

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


def test_the_people_of_this_world_stay_who_they_are():
    """Weights are trained on them and figures measured on them: a change here makes another world."""
    who = person(SPLITS["test"].first)
    assert (who.kind, who.hair.style, who.hair.colour_name) == ("woman", "fringed", "grey")
    assert who.shape["nose-hump-incr"] == pytest.approx(-0.3281367658)
    assert who.painted["skin"] == pytest.approx([0.5684026646, 0.3314589300, 0.1911993600], abs=1e-6)
    assert photo.photo(who, 0).yaw == pytest.approx(19.871999629)
    assert captions.describe(photo.photo(who, 0).attributes).endswith(
        "brown t-shirt, blue studio background, soft light"
    )


def test_another_number_and_another_index_are_somebody_or_something_else():
    assert not np.array_equal(person(7).painted["skin"], person(9).painted["skin"])
    assert photo.photo(person(7), 3).yaw != photo.photo(person(7), 4).yaw


def test_no_person_is_in_two_splits():
    for one, other in itertools.combinations(SPLITS.values(), 2):
        assert not set(one.numbers) & set(other.numbers)


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_has_as_many_women_as_men(name):
    kinds = [people.KINDS[number % 2] for number in SPLITS[name].numbers]
    assert kinds.count("woman") == kinds.count("man")
    assert [person(number).kind for number in SPLITS[name].numbers[:4]] == kinds[:4]


@pytest.mark.parametrize("number", range(0, 40, 3))
def test_a_caption_says_the_attributes_and_nothing_else(number):
    attributes = photo.photo(person(number), 0).attributes
    assert captions.understand(captions.describe(attributes)) == attributes
    assert set(captions.describe(attributes).replace(",", "").split()) <= set(captions.VOCABULARY)


def test_what_is_not_given_is_not_said():
    caption = captions.describe({"kind": "woman", "background": "blue room"})
    assert caption == "a photo of a woman, blue room background"


def test_an_unknown_phrase_is_refused_by_name():
    with pytest.raises(ValueError, match="riding a horse"):
        captions.understand("a photo of a man, riding a horse")


def test_no_two_phrases_mean_the_same():
    phrases = [phrase for values in captions.PHRASES.values() for phrase in values.values()]
    assert len(phrases) == len(set(phrases))


def test_a_mirrored_photo_faces_the_other_way_and_twice_is_back():
    attributes = {"kind": "man", "turn": "left", "light": "soft"}
    assert captions.mirrored(attributes)["turn"] == "right"
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
def test_a_subdivided_cube_keeps_its_topology_and_shrinks_towards_a_sphere():
    from tools.miniature.mesh import catmull_clark

    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    matrix, fine = catmull_clark(quads, 8)
    assert matrix.shape == (8 + 12 + 6, 8)
    assert fine.shape == (24, 4)
    np.testing.assert_allclose((matrix @ corners)[:8], corners * 5 / 9)  # the textbook's value


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

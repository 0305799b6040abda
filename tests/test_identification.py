"""Rank-1 identification and the autoencoder's ceiling, by hand: faces are directions in a plane."""

import pytest
import torch
from torch import Tensor

from metalora.config import UserError
from metalora.jobs.benchmark.summary import autoencoder_position, identity_values
from metalora.measure.identification import likeness_after, likeness_to_others, likeness_to_people, nearest
from metalora.measure.intervals import bootstrap, ratio


def at(*degrees: float) -> Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


GALLERY = {"ada": at(0, 60), "bob": at(90), "eve": at(180, 180, 180)}


def test_a_face_is_the_persons_whose_photos_it_is_most_like_in_the_mean():
    likeness = likeness_to_people(at(60)[0], GALLERY)
    assert likeness == pytest.approx({"ada": (0.5 + 1) / 2, "bob": 3**0.5 / 2, "eve": -0.5})
    assert nearest(likeness) == "bob", "one photo of ada is nearer than bob's, but not their mean"
    assert nearest(likeness_to_people(at(30)[0], GALLERY)) == "ada"


def test_others_count_once_each_and_not_the_person_nor_who_only_fills_the_gallery_up():
    likeness = {"ada": 0.9, "bob": 0.2, "eve": 0.4, "filler": 0.8}
    assert likeness_to_others(likeness, "ada", {"ada", "bob", "eve"}) == pytest.approx(0.3)
    assert likeness_to_others(likeness, "ada", {"ada"}) is None


def test_a_photo_after_the_autoencoder_is_not_compared_with_itself():
    photos = at(0, 60, 90)  # two held-out photos and the reference
    passed = [at(0, 180), at(90)]  # the first came back the same, with a second, smaller face; the other changed
    first, second = (0.5 + 0.0) / 2, (0.0 + 1.0) / 2
    assert likeness_after(passed, photos) == pytest.approx((first + second) / 2, abs=1e-6)
    assert likeness_after([torch.empty(0, 0), at(90)], photos) == pytest.approx(second, abs=1e-6), "a lost face"
    assert likeness_after([torch.empty(0, 0)] * 2, photos) is None


def image(identity: str, prompt: str, nearest: str | None, held_out: float | None, others: float | None) -> dict:
    return {
        "identity": identity,
        "prompt": prompt,
        "faces": int(nearest is not None),
        "nearest": nearest,
        "held_out": held_out,
        "others": others,
    }


IMAGES = [
    image("ada", "beach", "ada", 0.6, 0.1),
    image("ada", "beach", None, None, None),  # no face: not identified
    image("ada", "wood", "ada", 0.4, 0.1),
    image("bob", "beach", "eve", 0.3, 0.2),
    image("eve", "beach", "eve", 0.9, 0.0),  # of one photo: not compared
]


def test_an_image_without_a_face_is_not_identified_and_prompts_are_averaged_first():
    values = identity_values(IMAGES, "identified", None, {"ada", "bob"})
    assert values == {"ada": pytest.approx((0.5 + 1) / 2), "bob": 0.0}


def test_the_position_is_a_ratio_of_means_over_people():
    found = autoencoder_position(IMAGES, {"ada", "bob"}, {"ada": 0.9, "bob": 0.6})
    assert found["mean"] == pytest.approx(((0.5 - 0.1) + (0.3 - 0.2)) / ((0.9 - 0.1) + (0.6 - 0.2)))
    assert (found["low"], found["high"], found["count"]) == (None, None, 2)
    assert autoencoder_position(IMAGES, {"ada", "bob"}, {}) is None
    assert autoencoder_position(IMAGES, {"ada", "bob"}, {"ada": 0.05, "bob": 0.1}) is None, "a ceiling under the floor"


def test_a_ratio_of_ones_is_the_mean_and_a_constant_share_has_no_width():
    values = [0.4, 0.6, 0.7, 0.5, 0.65, 0.45]
    mean, whole = bootstrap(values), ratio(values, [1.0] * 6)
    assert (whole.mean, whole.low, whole.high) == pytest.approx((mean.mean, mean.low, mean.high))
    flat = ratio([0.25 * value for value in values], values)
    assert (flat.low, flat.mean, flat.high) == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(UserError, match="must be above 0"):
        ratio(values, [-1.0] * 6)


def test_95_percent_intervals_of_a_ratio_hold_the_truth():
    drawn = torch.Generator().manual_seed(4)
    held, worlds = 0, 600
    for world in range(worlds):
        wholes = 0.6 + 0.1 * torch.randn(16, generator=drawn)
        parts = 0.7 * wholes + 0.05 * torch.randn(16, generator=drawn)
        found = ratio(parts.tolist(), wholes.tolist(), draws=600, seed=world)
        held += found.low <= 0.7 <= found.high
    assert 0.92 <= held / worlds <= 0.98, held / worlds

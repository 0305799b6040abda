"""R-FaceSim by hand: unequal photo counts, missed faces, two faces, a missing prompt; and how sure its mean is."""

import math
import random
from collections.abc import Sequence
from statistics import mean

import numpy as np
import pytest
import torch
from torch import Tensor

from metalora.config import UserError
from metalora.measure.intervals import bootstrap
from metalora.measure.similarity import (
    ImageScore,
    Misses,
    detection_rate,
    identity_means,
    nearest,
    position,
    score_image,
)


def at(*degrees: float) -> Tensor:
    """Unit vectors in the plane: the cosine of two is that of the angle between."""
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))


ADA, BOB = {"held_out": at(0, 60), "reference": at(30)[0]}, {"held_out": at(0), "reference": at(90)[0]}
IMAGES = [
    score_image("ada", "beach", at(0), **ADA),  # S = (1 + 0.5) / 2 = 0.75, to the reference cos 30
    score_image("ada", "beach", at(), **ADA),  # no face
    score_image("ada", "forest", at(60, 0), **ADA),  # two faces: the larger counts
    score_image("bob", "beach", at(60, 0), **BOB),  # S = 0.5, best 1, to the reference cos 30
]  # bob has no forest


def r_facesim(scores: Sequence[ImageScore], misses: Misses = "left out") -> float:
    return mean(identity_means(scores, "held_out", misses).values())


def test_by_hand_with_misses_left_out_and_as_zero():
    assert identity_means(IMAGES, "held_out", "left out") == pytest.approx({"ada": 0.75, "bob": 0.5})
    assert r_facesim(IMAGES) == pytest.approx(0.625)
    assert mean(identity_means(IMAGES, "reference", "left out").values()) == pytest.approx(cos(30))
    assert identity_means(IMAGES, "copying", "left out")["bob"] == pytest.approx(cos(30) - 0.5)
    assert identity_means(IMAGES, "best", "left out") == pytest.approx({"ada": 0.75, "bob": 1.0})
    assert identity_means(IMAGES, "held_out", "as zero") == pytest.approx({"ada": (0.375 + 0.75) / 2, "bob": 0.5})
    assert r_facesim(IMAGES, "as zero") == pytest.approx((0.5625 + 0.5) / 2)
    assert detection_rate(IMAGES) == 0.75
    scores = [*IMAGES, score_image("eve", "beach", at(), **BOB)]
    assert "eve" not in identity_means(scores, "held_out", "left out")
    assert identity_means(scores, "held_out", "as zero")["eve"] == 0.0


def test_neither_the_order_nor_the_number_of_photos_and_seeds_nor_the_length_of_an_embedding_matters():
    shuffled = random.Random(0).sample(IMAGES, len(IMAGES))
    assert r_facesim(shuffled) == pytest.approx(r_facesim(IMAGES))
    assert r_facesim(shuffled, "as zero") == pytest.approx(r_facesim(IMAGES, "as zero"))
    twice = {"held_out": at(0, 60, 0, 60), "reference": ADA["reference"]}
    repeated = [score_image("ada", "beach", at(0), **twice) for _ in range(5)]
    assert r_facesim([*IMAGES, *repeated]) == pytest.approx(r_facesim(IMAGES))
    assert score_image("ada", "x", 7 * at(20), **ADA).held_out == pytest.approx(
        score_image("ada", "x", at(20), **ADA).held_out
    )


def test_without_a_held_out_photo_there_is_no_score():
    with pytest.raises(UserError, match="ada has no held-out photo"):
        score_image("ada", "beach", at(0), at(), at(0)[0])


def test_a_position_lies_between_floor_and_ceiling():
    assert position(0.46, 0.46, 0.85) == 0.0
    assert position(0.85, 0.46, 0.85) == pytest.approx(1.0)
    with pytest.raises(UserError, match="do not tell people apart"):
        position(0.5, 0.6, 0.6)


def test_a_face_is_the_persons_whose_photos_it_is_most_like_in_the_mean():
    gallery = {"ada": at(0, 60), "bob": at(90), "eve": at(180, 180, 180)}
    assert nearest(at(60)[0], gallery) == "bob", "one photo of ada is nearer than bob's, but not their mean"
    assert nearest(at(30)[0], gallery) == "ada"


WORLDS, IDENTITIES = 2000, 16


@pytest.mark.parametrize("kind", ["normal", "skewed", "share"])
def test_95_percent_intervals_hold_the_truth_in_95_percent_of_worlds(kind: str):
    rng = np.random.default_rng(1)
    if kind == "normal":
        worlds, truth = rng.normal(0.6, 0.1, (WORLDS, IDENTITIES)), 0.6
    elif kind == "share":  # of 20 images each, nearly all: many people have the same value
        worlds, truth = rng.binomial(20, rng.beta(9.5, 0.5, (WORLDS, IDENTITIES))) / 20, 0.95
    else:
        worlds, truth = rng.beta(6, 2, (WORLDS, IDENTITIES)), 0.75
    held = 0
    for index, world in enumerate(worlds):
        interval = bootstrap(world.tolist(), draws=1000, seed=index)
        if kind == "share":
            interval = interval.of_a_share()
            assert 0 <= interval.low <= interval.high <= 1
        held += interval.low <= truth <= interval.high
    assert abs(held / WORLDS - 0.95) <= 0.015, held / WORLDS


def test_the_paired_interval_finds_a_difference_that_unpaired_intervals_hide():
    rng = np.random.default_rng(2)
    people = rng.normal(0.6, 0.1, IDENTITIES)
    one, other = people + 0.02 + rng.normal(0, 0.01, IDENTITIES), people + rng.normal(0, 0.01, IDENTITIES)
    assert bootstrap(one.tolist()).low < bootstrap(other.tolist()).high, "the separate intervals overlap"
    difference = bootstrap((one - other).tolist())
    assert 0 < difference.low < 0.02 < difference.high


def test_one_seed_gives_one_interval_and_equal_values_no_width():
    values = [0.5, 0.6, 0.8, 0.4]
    assert bootstrap(values) == bootstrap(values)
    flat = bootstrap([0.5, 0.5, 0.5])
    assert (flat.low, flat.mean, flat.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[1.0] * 15 + [0.5], [1.0, 1.0, 1.0, 1.0, 0.95, 0.1]])
def test_draws_that_hold_hardly_any_other_value_do_not_stretch_the_interval(values: list[float]):
    interval = bootstrap(values)
    assert min(values) < interval.low < interval.mean < interval.high < 1.1


def test_one_identity_has_no_interval():
    with pytest.raises(UserError, match="at least 2 identities, got 1"):
        bootstrap([0.5])

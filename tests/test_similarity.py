"""R-FaceSim by hand: unequal photo counts, missed faces, two faces, a missing prompt."""

import math
import random
from collections.abc import Sequence
from statistics import mean

import pytest
import torch
from torch import Tensor

from metalora.config import UserError
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

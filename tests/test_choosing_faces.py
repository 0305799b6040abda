"""Which of the faces on a photo is meant, and what is said where that is not clear."""

import pytest
from photos import LANDMARKS

from metalora.config import UserError
from metalora.measure.faces import Face, choose_face, numbered
from metalora.method.crops import Box


def face_at(left: float, size: float) -> Face:
    return Face(Box(left, 10, left + size, 10 + size), LANDMARKS, 0.9)


def test_only_takes_the_only_face_and_refuses_several_by_number():
    one, two = face_at(0, 50), face_at(200, 80)
    assert choose_face([one], "only", "a.jpg") is one
    with pytest.raises(UserError) as caught:
        choose_face([one, two], "only", "a.jpg")
    message = str(caught.value)
    assert "a.jpg shows 2 faces" in message
    assert "1: 80 x 80 pixels at (200, 10)" in message
    assert "2: 50 x 50 pixels at (0, 10)" in message
    assert "--face 2" in message
    assert "--face largest" in message


def test_numbers_go_from_the_largest_to_the_smallest_and_from_left_to_right():
    small, right, left = face_at(0, 50), face_at(300, 80), face_at(100, 80)
    faces = [small, right, left]
    assert numbered(faces) == [left, right, small]
    assert choose_face(faces, "largest", "a.jpg") is left
    assert [choose_face(faces, str(number), "a.jpg") for number in (1, 2, 3)] == [left, right, small]


@pytest.mark.parametrize("choice", ["4", "0", "first"])
def test_a_number_that_is_not_there_is_refused(choice):
    with pytest.raises(UserError, match=rf"no face {choice} in a\.jpg.*number from 1 to 2"):
        choose_face([face_at(0, 50), face_at(100, 50)], choice, "a.jpg")


@pytest.mark.parametrize("choice", ["only", "largest", "1"])
def test_no_face_says_what_a_photo_needs(choice):
    with pytest.raises(UserError, match=r"No face was found in a\.jpg.*upright"):
        choose_face([], choice, "a.jpg")

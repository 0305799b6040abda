"""Finding and recognizing faces in square pictures: YuNet and SFace, dlib as a second opinion; how alike they are."""

import importlib.util
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from metalora.measure import load_faces
from metalora.method.crops import Box

LOOKED_AT = 320  # pixels: a second recognizer is shown the pictures at the size YuNet sees them
SURE = 0.9  # YuNet's score that counts as a face found: at 0.6 it passes blobs


@dataclass(frozen=True)
class Face:
    score: float  # YuNet's confidence
    box: Box  # in the picture's pixels
    embedding: np.ndarray  # [128], unit length


class FaceReader:
    def __init__(self):
        self.analyser = load_faces("sface")

    def read(self, picture: np.ndarray) -> Face | None:
        """The most certain face of a square RGB picture [n, n, 3] of bytes, or None."""
        photo = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255
        found = self.analyser.find(photo)
        if not found:
            return None
        best = max(found, key=lambda face: face.score)
        return Face(best.score, best.box, self.analyser.embed(photo, best).numpy())


Faces = Sequence[Face | None]  # of pictures; None where none was found


def found_share(faces: Faces, least: float = 0.0) -> float:
    """The share of pictures with a face of at least this score."""
    return round(float(np.mean([face is not None and face.score >= least for face in faces])), 4)


def compared(some: Faces, others: Faces, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cosines, whether of one person) of each face of `some` with the faces of every OTHER photo in `others`.

    Both are of the same photos [n], of these people [n]; lost faces are left out.
    """
    rows, columns = ([at for at, face in enumerate(faces) if face] for faces in (some, others))
    if not rows or not columns:
        return np.zeros(0), np.zeros(0, bool)
    left, right = (np.stack([face.embedding for face in faces if face]) for faces in (some, others))
    apart = ~np.equal.outer(rows, columns)
    return (left @ right.T)[apart], np.equal.outer(people[rows], people[columns])[apart]


class DlibReader:
    def __init__(self):
        import dlib

        self.dlib, self.detector = dlib, dlib.get_frontal_face_detector()
        # found, not imported: the package's own code asks for a setuptools of long ago
        package = importlib.util.find_spec("face_recognition_models")
        models = pathlib.Path(package.submodule_search_locations[0]) / "models"
        self.landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self.network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))

    def finds(self, picture: np.ndarray) -> bool:
        """Does dlib's own detector see a face in an RGB picture?"""
        return len(self.detector(_enlarged(picture))) > 0

    def read(self, picture: np.ndarray, face: Face) -> Face:
        """A face that YuNet found in an RGB picture, with dlib's embedding."""
        enlarged = _enlarged(picture)
        scale = LOOKED_AT / len(picture)
        left, top, width, height = (int(value * scale) for value in (*face.box[:2], face.box.width, face.box.height))
        side, middle = width, top + height * 0.55  # dlib's own boxes are square and sit lower than YuNet's
        square = self.dlib.rectangle(left, int(middle - side / 2), left + side, int(middle + side / 2))
        points = self.landmarks(enlarged, square)
        embedding = np.array(self.network.compute_face_descriptor(enlarged, points))
        return replace(face, embedding=embedding / np.linalg.norm(embedding))


def _enlarged(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((LOOKED_AT, LOOKED_AT), Image.Resampling.BICUBIC))

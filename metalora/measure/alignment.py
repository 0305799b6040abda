"""A face turned upright and scaled to 112 x 112 by its five landmarks, as SFace and ArcFace were trained."""

import numpy as np

SIZE = 112
# Where the eyes, the nose and the corners of the mouth belong; the template of both networks.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
SMALLEST_SCALE = 0.5


def aligned(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """[112, 112, 3] uint8 of a face in an image [H, W, 3], as OpenCV's FaceRecognizerSF.alignCrop makes it.

    With one addition: a face of more than about 224 pixels is first reduced by averaging. The bilinear warp looks at 4
    pixels only, so it would skip most of a large face and take its noise for detail.
    """
    import cv2

    scale = float(np.hypot(*similarity(landmarks, TEMPLATE)[0, :2]))
    if scale < SMALLEST_SCALE:
        shrink = scale / SMALLEST_SCALE
        width, height = (max(1, round(side * shrink)) for side in (image.shape[1], image.shape[0]))
        ratio = np.array([width / image.shape[1], height / image.shape[0]])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        landmarks = (landmarks + 0.5) * ratio - 0.5  # pixel centres are at whole numbers
    return cv2.warpAffine(image, similarity(landmarks, TEMPLATE), (SIZE, SIZE), flags=cv2.INTER_LINEAR)


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The 2 x 3 matrix that turns, scales and moves `points` [n, 2] closest to `targets`, in least squares.

    With points as complex numbers a similarity is z -> a z + b, so `a` is a one-dimensional regression.
    """
    z, w = points @ np.array([1, 1j]), targets @ np.array([1, 1j])
    centered = z - z.mean()
    a = np.vdot(centered, w - w.mean()) / np.vdot(centered, centered)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])

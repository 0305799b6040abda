"""What a face is, which one is meant, and what every face analyser can do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import UserError
from ..method.crops import Box

Point = tuple[float, float]


@dataclass(frozen=True)
class Face:
    """A face on a photo, in the photo's pixels.

    The box ends at the photo's edges. The landmarks are the eyes, the tip of the nose and the corners of the mouth,
    each pair from the left of the photo to its right; at the border they may lie outside.
    """

    box: Box
    landmarks: tuple[Point, Point, Point, Point, Point]
    score: float


class FaceAnalyser(Protocol):
    """Finds and embeds faces. Photos are [3, H, W] in 0..1. Several threads may use one analyser at once."""

    name: str
    licence: str
    digest: str  # sha256 of the embedder's file
    batch: int  # faces that are embedded at once
    length: int  # numbers of an embedding

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, largest first."""

    def cut(self, photo: Tensor, face: Face) -> np.ndarray:
        """[S, S, 3] uint8, RGB: what the embedder sees of a face."""

    def vectors_of_batch(self, cuts: Sequence[np.ndarray]) -> Tensor:
        """[n, d], each of length 1: the embeddings of a few faces."""

    def vectors(self, cuts: Sequence[np.ndarray]) -> Tensor:
        """The same of many faces, which do not depend on each other."""
        parts = [self.vectors_of_batch(cuts[start : start + self.batch]) for start in range(0, len(cuts), self.batch)]
        return torch.cat([torch.empty(0, self.length), *parts])

    def embed(self, photo: Tensor, face: Face) -> Tensor:
        """One face as a vector [d] of length 1."""
        return self.vectors([self.cut(photo, face)])[0]

    def embeddings(self, photo: Tensor) -> Tensor:
        """[k, d]: all faces of a photo, the largest first; [0, 0] where there is none."""
        cuts = [self.cut(photo, face) for face in self.find(photo)]
        return self.vectors(cuts) if cuts else torch.empty(0, 0)


def faces_from(boxes: np.ndarray, landmarks: np.ndarray, scores: np.ndarray, photo: Tensor) -> list[Face]:
    """Detections [n, 4], [n, 5, 2], [n] as faces, largest first. A box outside the photo is no face."""
    height, width = photo.shape[-2:]
    faces = []
    for box, points, score in zip(boxes.tolist(), landmarks.tolist(), scores.tolist(), strict=True):
        left, top, right, bottom = box
        visible = Box(max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
        if visible.width >= 1 and visible.height >= 1:
            a, b, c, d, e = ((x, y) for x, y in points)
            faces.append(Face(visible, (a, b, c, d, e), score))
    return numbered(faces)


def numbered(faces: Iterable[Face]) -> list[Face]:
    """The faces in the order of their numbers: largest first; of two equal ones, the left one."""
    return sorted(faces, key=lambda face: (-face.box.width * face.box.height, face.box.left, face.box.top))


def choose_face(faces: list[Face], choice: str, photo_name: str) -> Face:
    """The face that `choice` means: 'only', 'largest', or its number from 1, in the order of `numbered`."""
    faces = numbered(faces)
    if not faces:
        raise UserError(
            f"No face was found in {photo_name}. It should be upright, turned to the camera by at least half, and not "
            "covered; at least 30 pixels wide helps. Try another photo, or crop closer."
        )
    if choice == "largest":
        return faces[0]
    if choice == "only" and len(faces) == 1:
        return faces[0]
    if choice == "only":
        raise UserError(
            f"{photo_name} shows {len(faces)} faces: {_listed(faces)}. "
            "Say which one with --face 1, --face 2, ... or --face largest; `metalora crops` draws the numbers on it."
        )
    if choice.isdecimal() and 1 <= int(choice) <= len(faces):
        return faces[int(choice) - 1]
    raise UserError(
        f"There is no face {choice} in {photo_name}. It shows {len(faces)}: {_listed(faces)}. "
        f"--face takes 'only', 'largest' or a number from 1 to {len(faces)}."
    )


def _listed(faces: list[Face]) -> str:
    return "; ".join(
        f"{number}: {face.box.width:.0f} x {face.box.height:.0f} pixels at ({face.box.left:.0f}, {face.box.top:.0f}), "
        f"score {face.score:.2f}"
        for number, face in enumerate(faces, 1)
    )


def pixels(photo: Tensor) -> np.ndarray:
    """A photo [3, H, W] in 0..1 as [H, W, 3] uint8 RGB: embeddings change with the image type, so there is one."""
    return photo.detach().mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().cpu().numpy()


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

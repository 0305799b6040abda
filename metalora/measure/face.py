"""What a face is, and what every face analyser can do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

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

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, largest first."""

    def cut(self, photo: Tensor, face: Face) -> np.ndarray:
        """[S, S, 3] uint8, RGB: what the embedder sees of a face."""

    def vectors(self, cuts: Sequence[np.ndarray]) -> Tensor:
        """[n, d], each of length 1: the embeddings of many faces, which do not depend on each other."""

    def embed(self, photo: Tensor, face: Face) -> Tensor:
        """One face as a vector [d] of length 1."""
        return self.vectors([self.cut(photo, face)])[0]

    def cuts(self, photo: Tensor) -> list[np.ndarray]:
        """Every face of a photo, the largest first, as the embedder sees it."""
        return [self.cut(photo, face) for face in self.find(photo)]

    def embeddings(self, photos: Sequence[Tensor]) -> list[Tensor]:
        """[k, d] of each photo: all its faces, the largest first; [0, 0] where there is none."""
        return self.vectors_of_each([self.cuts(photo) for photo in photos])

    def vectors_of_each(self, cuts: Sequence[Sequence[np.ndarray]]) -> list[Tensor]:
        """The embeddings [k, d] of each photo's cuts, all made together."""
        flat = [cut for of_one in cuts for cut in of_one]
        if not flat:
            return [torch.empty(0, 0) for _ in cuts]
        parts = self.vectors(flat).split([len(of_one) for of_one in cuts])
        return [part if len(part) else torch.empty(0, 0) for part in parts]


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


def pixels(photo: Tensor) -> np.ndarray:
    """A photo [3, H, W] in 0..1 as [H, W, 3] uint8 RGB: embeddings change with the image type, so there is one."""
    return photo.detach().mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().cpu().numpy()

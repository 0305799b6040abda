"""FaceNet on VGGFace2, the embedder of the paper, with facenet-pytorch's pipeline and our own detector.

The largest box, margin 0, is squashed to 160 x 160 without alignment, brought to (x - 127.5) / 128 and embedded. The
paper's boxes are MTCNN's; ours are YuNet's, which are a little different in size and place, so scores are close to the
paper's but not exactly comparable: give the ceiling and the floor that `metalora evaluate pairs` prints beside them.

The embedding depends on how a face is squashed. facenet-pytorch resamples a Pillow image, an array and a tensor in
three ways; here it is always the first: 8-bit RGB, cut at whole pixels, Pillow's bilinear filter.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import UserError
from .face_models import YUNET
from .facenet_weights import read_weights
from .faces import Face, FaceAnalyser, faces_from, pixels
from .inception_resnet import LENGTH, SIDE, InceptionResnetV1
from .yunet import YuNet


class FaceNet(FaceAnalyser):
    """YuNet finds, InceptionResnetV1 embeds."""

    licence = f"MIT (FaceNet; the right to VGGFace2's photos is unresolved), {YUNET.licence} (YuNet)"

    def __init__(self, path: Path | None = None, device: torch.device | None = None) -> None:
        weights = read_weights(path)
        self.name = "facenet-vggface2" if path is None or weights.is_vggface2 else f"facenet-{path.stem}"
        self.digest = weights.sha256
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.embedder = InceptionResnetV1().eval().requires_grad_(False)
        try:
            self.embedder.load_state_dict(weights.tensors)
        except RuntimeError as error:
            raise UserError(f"{path} holds the weights of another network than InceptionResnetV1.") from error
        self.embedder.to(self.device)
        self.batch = 4 if self.device.type == "cpu" else 64
        self.detector = YuNet()

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, largest first."""
        return faces_from(*self.detector.find(pixels(photo)), photo)

    def cut(self, photo: Tensor, face: Face) -> np.ndarray:
        """[160, 160, 3] uint8: the box, squashed to a square."""
        left, top, right, bottom = (int(edge) for edge in face.box)
        image = Image.fromarray(pixels(photo[:, top:bottom, left:right]))
        return np.array(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    @torch.no_grad()
    def vectors(self, cuts: Sequence[np.ndarray]) -> Tensor:
        """[n, 512], each of length 1."""
        parts = [torch.empty(0, LENGTH)]
        for start in range(0, len(cuts), self.batch):
            faces = torch.from_numpy(np.stack(cuts[start : start + self.batch])).to(self.device)
            parts.append(self.embedder((faces.permute(0, 3, 1, 2).float() - 127.5) / 128).cpu())
        return torch.cat(parts)

"""An optional face analyser: SCRFD and ArcFace through insightface, whose weights are for non-commercial use.

insightface would fetch missing weights by itself. Here only files that are already there are opened, by their path.
"""

import contextlib
import hashlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import UserError
from .faces import Face, FaceAnalyser, aligned, faces_from, pixels
from .sface import providers


class Pack(NamedTuple):
    """One of insightface's model packs: a folder with a detector and an embedder."""

    name: str
    detector: str
    embedder: str


PACKS = (
    Pack("buffalo_l", "det_10g.onnx", "w600k_r50.onnx"),
    Pack("antelopev2", "scrfd_10g_bnkps.onnx", "glintr100.onnx"),
)
FOLDER = Path("~/.insightface/models")
PACKS_PAGE = "https://github.com/deepinsight/insightface/tree/master/python-package#model-zoo"
SCORE_THRESHOLD = 0.5  # insightface's own
DETECTION_SIDES = (640, 320, 1280)  # the usual one; then for a face that fills the frame, and for a tiny one
LICENCE = "insightface's models: non-commercial research only"


class ArcFace(FaceAnalyser):
    """SCRFD finds, ArcFace embeds."""

    licence = LICENCE
    batch, length = 16, 512

    def __init__(self, folder: Path | None = None) -> None:
        if importlib.util.find_spec("insightface") is None:
            raise UserError(
                "The face analyser arcface needs the package insightface, which is not installed: "
                f"pip install insightface. It needs these files too: {_wanted(folder)}. {LICENCE}. "
                "--faces sface needs neither."
            )
        pack, files = _find_pack(folder)
        self.name = f"arcface-{pack.name}"
        self.digest = hashlib.sha256((files / pack.embedder).read_bytes()).hexdigest()
        self.detector, self.embedder = (_open(files / name) for name in (pack.detector, pack.embedder))

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, largest first."""
        image = np.ascontiguousarray(pixels(photo)[..., ::-1])  # insightface takes BGR
        for side in DETECTION_SIDES:
            boxes, landmarks = self.detector.detect(image, input_size=(side, side))
            if len(boxes):
                return faces_from(boxes[:, :4], landmarks, boxes[:, 4], photo)
        return []

    def cut(self, photo: Tensor, face: Face) -> np.ndarray:
        """[112, 112, 3] uint8: the face upright."""
        return aligned(pixels(photo), np.array(face.landmarks))

    def vectors_of_batch(self, cuts: Sequence[np.ndarray]) -> Tensor:
        """[n, 512], each of length 1."""
        images = [np.ascontiguousarray(cut[..., ::-1]) for cut in cuts]
        return F.normalize(torch.from_numpy(self.embedder.get_feat(images).astype(np.float32)), dim=1)


def _find_pack(folder: Path | None) -> tuple[Pack, Path]:
    root = (folder or FOLDER).expanduser()
    for pack in PACKS:
        if (root / pack.name / pack.detector).is_file() and (root / pack.name / pack.embedder).is_file():
            return pack, root / pack.name
    raise UserError(
        f"insightface is installed, but its model files are not there: {_wanted(folder)}. "
        f"Get one pack from {PACKS_PAGE} ({LICENCE}), or use --faces sface, which needs no files."
    )


def _wanted(folder: Path | None) -> str:
    root = (folder or FOLDER).expanduser()
    return ", or ".join(f"{pack.detector} and {pack.embedder} in {root / pack.name}" for pack in PACKS)


def _open(path: Path) -> Any:
    """insightface's own class for the file; it prints what it does, which a progress bar cannot stand."""
    from insightface import model_zoo

    with contextlib.redirect_stdout(io.StringIO()):
        model = model_zoo.get_model(str(path), providers=providers())
    if model is None:
        raise UserError(f"insightface does not know what {path} is: the file is damaged, or of another pack.")
    if model.taskname == "detection":
        model.det_thresh = SCORE_THRESHOLD
    return model

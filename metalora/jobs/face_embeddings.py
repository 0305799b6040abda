"""The faces of a picture file as embeddings."""

from pathlib import Path

import torch
from torch import Tensor

from ..config import UserError
from ..measure.faces import FaceAnalyser
from ..store.images import read_photo


def only_embedding(analyser: FaceAnalyser, path: Path) -> Tensor:
    """The largest face of a real photo."""
    faces = embeddings(analyser, path)
    if not len(faces):
        raise UserError(f"No face was found in {path}. Every photo that others are compared with must show one.")
    return faces[0]


def embeddings(analyser: FaceAnalyser, path: Path) -> Tensor:
    """[k, d]: every face of a picture, the largest first."""
    photo = read_photo(path)
    vectors = [analyser.embed(photo, face) for face in analyser.find(photo)]
    return torch.stack(vectors) if vectors else torch.empty(0, 0)

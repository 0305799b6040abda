"""What FLUX learns from: photos and crops as latents, how they are kept in a folder, and how they are drawn."""

import io
import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from metalora.method.crops import cells_within
from metalora.store.files import digest_of_tensors, write_bytes

from .captions import Attributes, mirrored
from .flow_model import spoken

CROPPED = 0.4  # the share of batches that show crops
FACE = 3.0  # what a cell of a face counts in the loss against any other: a face is a fifth of a photo
STEP = 1 / 16  # of latents as bytes: its rounding is 0.018 of their deviation, far below what the decoder sees


class Batch(NamedTuple):
    """Latents [n, 16, h, w], what is said of them, and what each cell counts [n, 1, h, w], 1 on average."""

    clean: Tensor
    captions: list[str]
    weights: Tensor


@dataclass(frozen=True)
class Latents:
    """Photos of one size, encoded: [views, n, 16, h, w] bytes (`to_bytes`), scaled as FLUX does; view 1 is mirrored.

    Their faces are boxes [n, 4], left, top, right, bottom in latent cells of the view that is not mirrored; zeros where
    none was found.
    """

    values: Tensor
    attributes: Sequence[Attributes]
    faces: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        flips = torch.randint(len(self.values), (count,), generator=generator)
        index = torch.randint(self.values.shape[1], (count,), generator=generator)
        said = [
            spoken(mirrored(self.attributes[at]) if flip else self.attributes[at], generator)
            for flip, at in zip(flips.tolist(), index.tolist(), strict=True)
        ]
        height, width = self.values.shape[3:]
        weights = face_weights(self.faces[index], height, width)
        weights = torch.where(flips.bool().view(-1, 1, 1, 1), weights.flip(3), weights)
        return Batch(from_bytes(self.values[flips, index]), said, weights)


class Mixture(NamedTuple):
    """Whole photos in most batches, crops of one size in the others if there are some, sizes as often as crops."""

    whole: Latents
    crops: Sequence[Latents]

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        if not self.crops or torch.rand((), generator=generator) >= CROPPED:
            return self.whole.draw(count, generator)
        weights = torch.tensor([float(len(one.attributes)) for one in self.crops])
        return self.crops[int(torch.multinomial(weights, 1, generator=generator))].draw(count, generator)


def face_weights(boxes: Tensor, height: int, width: int) -> Tensor:
    """What each cell counts [n, 1, height, width]: those whose middle is in the face's box FACE times the others.

    Weights move no minimum, the velocity's mean at each cell, but a small model spends itself on what they favour.
    """
    weights = 1 + (FACE - 1) * cells_within(boxes, height, width).unsqueeze(1).float()
    return weights / weights.mean((1, 2, 3), keepdim=True)


def to_bytes(latents: Tensor) -> Tensor:
    """Latents within +-8 in 256 steps."""
    return ((latents / STEP).round() + 128).clamp(0, 255).byte()


def from_bytes(values: Tensor) -> Tensor:
    """What `to_bytes` made of latents, as latents again."""
    return (values.float() - 128) * STEP


def encoder_of(autoencoder: AutoencoderKL) -> str:
    """A hash of what latents depend on: another decoder may draw the same ones, another encoder makes others."""
    return digest_of_tensors(autoencoder.encoder.state_dict())


def write_latents(latents: Latents, path: pathlib.Path, encoder: str) -> None:
    """One file of `tools.miniature.encode`'s folder."""
    data = io.BytesIO()
    said = [json.dumps(one) for one in latents.attributes]
    np.savez_compressed(
        data,
        values=latents.values.numpy(),
        attributes=np.array(said),
        faces=latents.faces.numpy(),
        encoder=np.array(encoder),
    )
    write_bytes(path, data.getvalue())


def read_latents(folder: pathlib.Path, encoder: str) -> Mixture:
    """Whole photos and crops by size of a folder that `tools.miniature.encode` wrote, all of this encoder."""
    if not (folder / "whole.npz").exists():
        raise SystemExit(f"{folder} holds no whole.npz. Make it with tools.miniature.encode.")
    crops = sorted(folder.glob("crops-*.npz"))
    return Mixture(_read(folder / "whole.npz", encoder), [_read(path, encoder) for path in crops])


def _read(path: pathlib.Path, encoder: str) -> Latents:
    with np.load(path) as stored:
        if str(stored["encoder"]) != encoder:
            raise SystemExit(
                f"{path} was made by another encoder than that of --autoencoder. Give the autoencoder it was made "
                "by, or make the folder anew with tools.miniature.encode."
            )
        if "faces" not in stored:
            raise SystemExit(f"{path} does not say where the faces are. Make the folder anew, tools.miniature.encode.")
        attributes = [json.loads(str(one)) for one in stored["attributes"]]
        return Latents(torch.from_numpy(stored["values"]), attributes, torch.from_numpy(stored["faces"]))

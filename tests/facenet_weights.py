"""Weights and pictures for a FaceNet that anyone can make again from a seed, so that no large file is stored."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

BOX = (70.6, 20.3, 275.8, 290.5)  # on `made_up_picture`, between pixels


def made_up(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """A state dict of these names and shapes, of a network that neither dies out nor explodes.

    NumPy's RandomState, whose numbers are promised never to change, draws uniformly from -1..1, name after name in
    alphabetical order. Kernels are scaled by sqrt(6 / inputs), variances and gains are 1 + half of it, biases and means
    a tenth of it.
    """
    random = np.random.RandomState(20180402)
    weights = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
            continue
        drawn = torch.from_numpy(random.random_sample(shape) * 2 - 1)
        if len(shape) > 1:
            drawn *= math.sqrt(6 / math.prod(shape[1:]))
        elif name.endswith((".weight", "running_var")):
            drawn = 1 + drawn / 2
        else:
            drawn /= 10
        weights[name] = drawn.float()
    return weights


def made_up_faces(count: int) -> np.ndarray:
    """[count, 160, 160, 3] uint8: coarse patches of colour with noise on them."""
    random = np.random.RandomState(114759)
    patches = random.randint(0, 256, (count, 10, 10, 3)).repeat(16, axis=1).repeat(16, axis=2)
    return (patches * 0.8 + random.randint(0, 52, (count, 160, 160, 3))).astype(np.uint8)


def made_up_picture() -> np.ndarray:
    """[320, 320, 3] uint8: four of the faces."""
    return np.concatenate([np.concatenate(list(two), axis=1) for two in made_up_faces(4).reshape(2, 2, 160, 160, 3)])

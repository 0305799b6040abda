"""Weights and pictures for a FaceNet that anyone can make again from a seed, and what facenet-pytorch makes of them.

Its package cannot live beside ours; what it computes is recorded, for our own FaceNet to be compared with:

    python -m venv /tmp/facenet && /tmp/facenet/bin/pip install torch torchvision numpy pillow requests
    /tmp/facenet/bin/pip install --no-deps facenet-pytorch && /tmp/facenet/bin/python tests/record_facenet.py

The last face is cut out of a larger picture and squashed by facenet-pytorch's own `extract_face`; its box lies between
pixels.
"""

import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

OUT = Path(__file__).parent / "data" / "facenet_pytorch.npz"
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


if __name__ == "__main__":
    from facenet_pytorch import InceptionResnetV1, extract_face, fixed_image_standardization

    model = InceptionResnetV1().eval()
    model.load_state_dict(made_up({name: tensor.shape for name, tensor in model.state_dict().items()}))
    drawn = torch.from_numpy(made_up_faces(3)).permute(0, 3, 1, 2).float()
    cut = extract_face(Image.fromarray(made_up_picture()), np.array(BOX))
    with torch.inference_mode():
        outputs = model(fixed_image_standardization(torch.cat([drawn, cut[None]])))
    np.savez_compressed(
        OUT,
        source=f"facenet-pytorch {version('facenet-pytorch')}, torch {torch.__version__}",
        names=sorted(model.state_dict()),
        embeddings=outputs.numpy(),
    )
    print(f"wrote {OUT}, {OUT.stat().st_size} bytes")

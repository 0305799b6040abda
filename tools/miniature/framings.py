"""Photos cropped as personalization crops them: its aspect ratios and scales, around the face that YuNet finds.

FLUX learns from them beside whole photos: to one that has seen square photos alone other ratios are new, and
personalizing on crops then spends itself on teaching ratios.
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from metalora.method.crops import Box, plan, training_size
from metalora.store.images import resize_crop

from .captions import Attributes
from .faces import LOOKED_AT, FaceReader
from .photos import Photos

MULTIPLE = 16  # FLUX's tokens are 16 x 16 pixels


@dataclass(frozen=True)
class Framed:
    """Crops of one size: pixels [n, 3, h, w] as bytes, and what their photos' captions say."""

    pixels: Tensor
    attributes: list[Attributes]


def framed(photos: Photos, every: int, generator: torch.Generator) -> list[Framed]:
    """One crop, drawn from those that personalization would make, of every so manieth photo with a face; by size."""
    reader, side = FaceReader(), photos.pixels.shape[2]
    found: dict[tuple[int, int], list[tuple[Tensor, Attributes]]] = defaultdict(list)
    for index in range(0, len(photos), every):
        face = reader.read(photos.pixels[index].permute(1, 2, 0).numpy())
        if face is None:
            continue
        left, top, width, height = (face.box * side / LOOKED_AT).tolist()
        boxes = plan(Box(left, top, left + width, top + height), side, side)
        box = boxes[int(torch.randint(len(boxes), (), generator=generator))]
        size = training_size(box.width / box.height, side, MULTIPLE)
        crop = resize_crop(photos.pixels[index].float() / 255, box, *size)
        found[size].append(((crop * 255).round().byte(), photos.attributes[index]))
    return [
        Framed(torch.stack([crop for crop, _ in crops]), [attributes for _, attributes in crops])
        for _, crops in sorted(found.items())
    ]

"""Photos cropped as personalization crops them: its aspect ratios and scales, around the face that YuNet finds.

FLUX learns from them beside whole photos: to one that has seen square photos alone other ratios are new, and
personalizing on crops then spends itself on teaching ratios.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from metalora.method.crops import Box, plan, seen_in, training_size
from metalora.store.images import resize_crop

from .captions import Attributes
from .faces import LOOKED_AT, FaceReader
from .photos import Photos

MULTIPLE = 16  # FLUX's tokens are 16 x 16 pixels


@dataclass(frozen=True)
class Framed:
    """Crops of one size: pixels [n, 3, h, w] as bytes, what their photos' captions say, and where the faces are."""

    pixels: Tensor
    attributes: list[Attributes]
    faces: Tensor  # [n, 4] left, top, right, bottom in the crop's pixels; some reach beyond it


def find_faces(photos: Photos) -> list[Box | None]:
    """Each photo's most certain face, in its pixels."""
    reader, side = FaceReader(), photos.pixels.shape[2]
    found: list[Box | None] = []
    for pixels in tqdm(photos.pixels, desc="faces", unit="photo"):
        face = reader.read(pixels.permute(1, 2, 0).numpy())
        if face:
            left, top, width, height = (face.box * side / LOOKED_AT).tolist()
        found.append(Box(left, top, left + width, top + height) if face else None)
    return found


def framed(photos: Photos, faces: Sequence[Box | None], every: int, generator: torch.Generator) -> list[Framed]:
    """One crop, drawn from those that personalization would make, of every so manieth photo with a face; by size."""
    side = photos.pixels.shape[2]
    found: dict[tuple[int, int], list[tuple[Tensor, Attributes, Tensor]]] = defaultdict(list)
    for index in range(0, len(photos), every):
        face = faces[index]
        if face is None:
            continue
        boxes = plan(face, side, side)
        box = boxes[int(torch.randint(len(boxes), (), generator=generator))]
        size = training_size(box.width / box.height, side, MULTIPLE)
        crop = resize_crop(photos.pixels[index].float() / 255, box, *size)
        within = torch.tensor(seen_in(face, box, size))
        found[size].append(((crop * 255).round().byte(), photos.attributes[index], within))
    return [
        Framed(torch.stack(crops), list(attributes), torch.stack(within))
        for crops, attributes, within in (zip(*some, strict=True) for _, some in sorted(found.items()))
    ]

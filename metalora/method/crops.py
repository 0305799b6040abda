"""Face box -> up to 25 crop boxes (paper, supplement: augmentation). Numbers only, no pixels.

A crop is centred on the face; its SHORTER side is the face's longer side times a scale. Pixel coordinates have their
origin at the photo's top left corner; right and bottom edges are exclusive.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Ratio = tuple[int, int]
RATIOS: tuple[Ratio, ...] = ((16, 9), (4, 3), (1, 1), (3, 4), (9, 16))
SQUARE: Ratio = (1, 1)
SCALES: tuple[float, ...] = (1.5, 2.0, 2.5, 3.5, 4.5)


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


def plan(
    face: Box, width: int, height: int, ratios: Sequence[Ratio] = RATIOS, scales: Sequence[float] = SCALES
) -> list[Box]:
    """The crops of a photo of width x height pixels, whole pixels, ratio by ratio and small to large.

    Where the photo cannot hold a crop, the closest size that fits is taken, unless it was taken already.
    """
    boxes: dict[tuple[int, int], Box] = {}
    for ratio in ratios:
        for scale in scales:
            size = fitting_size(ratio, scale * max(face.width, face.height), width, height)
            boxes.setdefault(size, box_around(face.center, size, width, height))
    return list(boxes.values())


def fitting_size(ratio: Ratio, shorter: float, width: int, height: int) -> tuple[int, int]:
    """(width, height) of `ratio` whose shorter side is `shorter`, or the largest such size the photo can hold."""
    unit = min(shorter / min(ratio), width / ratio[0], height / ratio[1])
    return max(1, round(unit * ratio[0])), max(1, round(unit * ratio[1]))


def box_around(center: tuple[float, float], size: tuple[int, int], width: int, height: int) -> Box:
    """The box of this size centred on `center`, pushed back inside the photo."""
    left, top = (
        min(max(math.floor(middle - side / 2 + 0.5), 0), limit - side)
        for middle, side, limit in zip(center, size, (width, height), strict=True)
    )
    return Box(left, top, left + size[0], top + size[1])


def training_size(ratio: float, resolution: int, multiple: int) -> tuple[int, int]:
    """(width, height) of about resolution^2 pixels and about this ratio, in multiples the latents can be packed in."""
    sides = resolution * math.sqrt(ratio), resolution / math.sqrt(ratio)
    width, height = (max(multiple, round(side / multiple) * multiple) for side in sides)
    return width, height


def trimmed(box: Box, ratio: float) -> Box:
    """The largest centred part of `box` with exactly this width : height, so that resizing never stretches a face."""
    width, height = min(box.width, box.height * ratio), min(box.height, box.width / ratio)
    x, y = box.center
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def grown(box: Box, factor: float) -> Box:
    """The box with its sides this many times as long, about the same centre."""
    (x, y), across, down = box.center, box.width * factor / 2, box.height * factor / 2
    return Box(x - across, y - down, x + across, y + down)


def seen_in(box: Box, crop: Box, size: tuple[int, int]) -> Box:
    """Where a photo's `box` lies on its `crop` that was resized to (width, height); it may reach beyond it."""
    across, down = size[0] / crop.width, size[1] / crop.height
    left, right = ((x - crop.left) * across for x in (box.left, box.right))
    top, bottom = ((y - crop.top) * down for y in (box.top, box.bottom))
    return Box(left, top, right, bottom)


def cells_within(boxes: Tensor, height: int, width: int) -> Tensor:
    """[n, height, width], whether the middle of each cell lies in the nth box [left, top, right, bottom], in cells."""
    left, top, right, bottom = boxes.view(-1, 4, 1, 1).unbind(1)
    x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5).unsqueeze(1)
    return (left <= x) & (x < right) & (top <= y) & (y < bottom)


def upscale(box: Box, size: tuple[int, int]) -> float:
    """How many times `box` is enlarged to become an image of this size; below 1 it is reduced."""
    return max(size[0] / box.width, size[1] / box.height)

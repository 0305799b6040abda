"""Face box -> up to 25 crop boxes (paper, supplement: augmentation). Numbers only, no pixels.

A crop is centred on the face; its SHORTER side is the face's longer side times a scale. Pixel coordinates have their
origin at the photo's top left corner, right and bottom edges are exclusive.
"""

from typing import NamedTuple

RATIOS: tuple[tuple[int, int], ...] = ((16, 9), (4, 3), (1, 1), (3, 4), (9, 16))
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

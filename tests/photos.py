"""Test photos made from the portrait that ships: one face, several, none; tiny, huge, at the border."""

import functools
import struct
import zlib

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metalora.measure import sface
from metalora.method.crops import Box
from metalora.store.images import demo_portrait, read_photo, resize_crop

# Where the portrait's face is, as anyone can see: forehead to chin, cheek to cheek.
FACE = Box(180, 65, 268, 172)
LANDMARKS = ((203.0, 101.0), (245.0, 101.0), (223.0, 125.0), (204.0, 144.0), (240.0, 143.0))
SMALL = (64, 48)


@functools.cache
def portrait() -> Tensor:
    """The portrait; never change it in place."""
    return read_photo(demo_portrait())


def empty_wall(width: int = 640, height: int = 480) -> Tensor:
    """A photo without a face: a soft gradient."""
    row = torch.linspace(0.4, 0.6, width).expand(height, width)
    return torch.stack([row, row, row.flip(-1)])


def placed(onto: Tensor, width: int, height: int, left: int, top: int, part: Box | None = None) -> tuple[Tensor, Box]:
    """A photo with (a part of) the portrait on it, width x height pixels large, and where its face is then."""
    part = part or Box(0, 0, 512, 512)
    photo, picture = onto.clone(), resize_crop(portrait(), part, width, height)
    photo[:, top : top + height, left : left + width] = picture
    x, y = width / part.width, height / part.height
    return photo, Box(
        left + (FACE.left - part.left) * x,
        top + (FACE.top - part.top) * y,
        left + (FACE.right - part.left) * x,
        top + (FACE.bottom - part.top) * y,
    )


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = max(0.0, min(one.right, other.right) - max(one.left, other.left))
    height = max(0.0, min(one.bottom, other.bottom) - max(one.top, other.top))
    shared = width * height
    return shared / (one.width * one.height + other.width * other.height - shared)


def png_that_claims(width: int, height: int, with_data: bool = True) -> bytes:
    """A PNG of a few bytes whose correct header promises this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"") if with_data else b""
    return b"\x89PNG\r\n\x1a\n" + header + data


def small_picture() -> Image.Image:
    """A small real picture with every tone."""
    return Image.open(demo_portrait()).crop((100, 40, 356, 232)).resize(SMALL)


def close(one: Tensor, other: Tensor, levels: float) -> bool:
    """Equal up to so many of 255 levels, on average."""
    return one.shape == other.shape and float((one - other).abs().mean()) * 255 <= levels


def tiff_of(
    values: np.ndarray, *, planes: bool = False, order: str = "<", orientation: int = 1, colours: int | None = None
) -> bytes:
    """An uncompressed TIFF of [H, W, C] numbers of any type, which Pillow itself cannot write."""
    height, width, count = values.shape
    data = np.moveaxis(values, 2, 0) if planes else values
    pixels = np.ascontiguousarray(data).astype(values.dtype.newbyteorder(order)).tobytes()
    strips = count if planes else 1
    end = 8 + len(pixels)  # the lists of more than one number lie behind the pixels
    lists = struct.pack(f"{order}{count}H", *[values.itemsize * 8] * count)
    lists += struct.pack(f"{order}{count}H", *[{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * count)
    lists += struct.pack(f"{order}{strips}I", *(8 + index * len(pixels) // strips for index in range(strips)))
    lists += struct.pack(f"{order}{strips}I", *[len(pixels) // strips] * strips)
    at = [end, end + 2 * count, end + 4 * count, end + 4 * count + 4 * strips]
    single = count == 1
    bits, kind = (struct.unpack_from(f"{order}{count}H", lists, 2 * count * index)[0] for index in range(2))
    offsets, sizes = (8, len(pixels)) if strips == 1 else at[2:]
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, count, bits if single else at[0]), (259, 3, 1, 1)]
    colours = (1 if single else 2) if colours is None else colours  # 0: grey, white first; 2: RGB; 8: LAB
    entries += [(262, 3, 1, colours), (273, 4, strips, offsets), (274, 3, 1, orientation)]
    entries += [(277, 3, 1, count), (278, 4, 1, height), (279, 4, strips, sizes), (284, 3, 1, 2 if planes else 1)]
    entries += [(339, 3, count, kind if single else at[1])]
    table = struct.pack(f"{order}H", len(entries))
    for tag, type_, number, value in entries:
        short = type_ == 3 and number == 1
        table += struct.pack(f"{order}HHI", tag, type_, number) + struct.pack(
            f"{order}{'HH' if short else 'I'}", *([value, 0] if short else [value])
        )
    table += struct.pack(f"{order}I", 0)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", end + len(lists)) + pixels + lists + table


def opencv_faces(image: np.ndarray, threshold: float = 0.6) -> np.ndarray:
    """[n, 15] of OpenCV's FaceDetectorYN at the image's own size."""
    path = str(sface.models_folder() / sface.YUNET.name)
    detector = cv2.FaceDetectorYN.create(path, "", (image.shape[1], image.shape[0]), threshold, 0.3, 5000)
    return detector.detect(image)[1]

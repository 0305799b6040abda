"""Photo <-> tensor. A photo is [3, H, W] float32 in 0..1, sRGB, upright; its values are those of an 8-bit image."""

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..config import UserError
from ..method.crops import Box
from .decode import decode, opened
from .files import write_bytes
from .text import parse_json

RESAMPLER = Image.Resampling.LANCZOS  # antialiased; one for everything, since a face's embedding depends on it
LANCZOS_REACH = 3  # pixels of the smaller image on each side
JPEG_QUALITY = 95
SHEET = "sheet"  # what a page of images says it is, so that it is not taken for one


def read_photo(path: Path) -> Tensor:
    """The photo in a file, as every program shows it; UserError if any part of it cannot be read."""
    return to_tensor(decode(path))


def photo_digest(photo: Tensor) -> str:
    """sha256 of the photo's size and 8-bit pixels: what a latent depends on.

    Of the pixels and not of the file: a renamed, re-tagged or losslessly re-saved photo stays a cache hit, and one
    that another decoder reads differently becomes a miss.
    """
    height, width = photo.shape[-2:]
    return hashlib.sha256(f"{width} x {height} ".encode() + to_pil(photo).tobytes()).hexdigest()


def to_tensor(image: Image.Image) -> Tensor:
    """A Pillow image of mode RGB as [3, H, W] in 0..1."""
    assert image.mode == "RGB", image.mode
    photo = torch.empty(3, image.height, image.width)
    for channel in range(3):  # one by one: a large photo is in memory once as numbers, not three times
        photo[channel] = torch.from_numpy(np.array(image.getchannel(channel)))
    return photo.div_(255)


def to_pil(photo: Tensor) -> Image.Image:
    """A photo [3, H, W] as a Pillow image of mode RGB; values outside 0..1 are clipped."""
    assert photo.shape == (3, *photo.shape[1:3]), photo.shape
    eight_bit = photo.detach().float().mul(255).round().clamp(0, 255).byte()
    return Image.fromarray(eight_bit.permute(1, 2, 0).contiguous().cpu().numpy())


def save_image(photo: Tensor, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a .png, with metadata as its text, or a .jpg without; whole or not at all."""
    data = io.BytesIO()
    if path.suffix.lower() == ".png":
        text = PngInfo()
        for key, value in (metadata or {}).items():
            text.add_itxt(key, value)
        to_pil(photo).save(data, "PNG", pnginfo=text)
    elif path.suffix.lower() in (".jpg", ".jpeg"):
        assert not metadata, "only PNG holds metadata here"
        to_pil(photo).save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        raise UserError(f"{path}: images are written as .png or .jpg; give the file one of these endings.")
    write_bytes(path, data.getvalue())


def read_image_metadata(path: Path) -> dict[str, str]:
    """The metadata that `save_image` wrote; empty for a picture without."""
    with opened(path) as image:
        return {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file as it is stored, which may lie on its side; no pixel is decoded."""
    with opened(path) as image:
        return image.size


def made_here(path: Path) -> dict[str, Any] | None:
    """What one of our PNGs says of how it was made: prompt, seed, lora, ...; None for any other picture."""
    try:
        metadata = parse_json(read_image_metadata(path).get("metalora", ""))
    except ValueError:
        return None
    return metadata if isinstance(metadata, dict) else None


def resize_crop(photo: Tensor, box: Box, width: int, height: int) -> Tensor:
    """The photo's pixels in `box`, which may lie between pixels, as [3, height, width]."""
    photo_height, photo_width = photo.shape[-2:]
    box = Box(max(box.left, 0), max(box.top, 0), min(box.right, photo_width), min(box.bottom, photo_height))
    assert min(box.width, box.height) > 0, box
    # Only what the resampler can reach is converted to 8 bits: a crop of a large photo costs what the crop costs.
    reach_x = LANCZOS_REACH * max(box.width / width, 1) + 1
    reach_y = LANCZOS_REACH * max(box.height / height, 1) + 1
    left, top = max(math.floor(box.left - reach_x), 0), max(math.floor(box.top - reach_y), 0)
    right, bottom = (
        min(math.ceil(box.right + reach_x), photo_width),
        min(math.ceil(box.bottom + reach_y), photo_height),
    )
    inner = (box.left - left, box.top - top, box.right - left, box.bottom - top)
    return to_tensor(to_pil(photo[:, top:bottom, left:right]).resize((width, height), RESAMPLER, box=inner))


def demo_portrait() -> Path:
    """A real portrait that ships: NASA's photograph of the astronaut Eileen Collins, public domain."""
    return Path(__file__).parents[1] / "data" / "astronaut.jpg"  # by place: inside ComfyUI the package has another name

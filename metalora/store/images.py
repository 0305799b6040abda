"""Photo <-> tensor. A photo is [3, H, W] float32 in 0..1, sRGB, upright; its values are those of an 8-bit image.

A file is read whole or not at all: every way it can be wrong has its sentence, and what it claims to be is checked
before anything is decoded.
"""

import contextlib
import functools
import hashlib
import importlib.util
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageCms, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from ..config import UserError
from ..method.crops import Box

RESAMPLER = Image.Resampling.LANCZOS  # antialiased; one for everything, since a face's embedding depends on it
LANCZOS_REACH = 3  # pixels of the smaller image on each side
MAX_MEGAPIXELS = 40  # that are decoded: with all copies on the way to a tensor, less than 1 GB
MAX_MEGAPIXELS_OF_JPEG = 120  # the largest cameras make 102 to 108; above the other limit they are read at half size
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF", "JPEG2000", "PPM")
HEIF_ENDINGS = {".heic", ".heif", ".hif"}
CAMERA_RAW = {".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}
# What Pillow's decoders raise on a damaged file: each format has its own ways, found by damaging files at random.
DAMAGED = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, LookupError, TypeError, struct.error, zlib.error)
BITS, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 262, 284, 339  # tags of TIFF
IN_PLANES = ("RGB", "RGBA", "CMYK")  # whose planes of 8 bits Pillow puts together right
PLAIN_TIFF = {(1, bits) for bits in (1, 2, 4, 8, 16)}  # (sample format, bits) that Pillow and libtiff read right


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


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file as it is stored, which may lie on its side; no pixel is decoded."""
    with opened(path) as image:
        return image.size


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


@functools.cache
def endings() -> frozenset[str]:
    """How the names of files end that `decode` reads here, in small letters: asked of the decoders that are there."""
    Image.init()
    known = {ending for ending, name in Image.registered_extensions().items() if name in FORMATS and name in Image.OPEN}
    heif = HEIF_ENDINGS if importlib.util.find_spec("pillow_heif") else set()
    return frozenset(known | {".mpo"} | heif)


def decode(path: Path) -> Image.Image:
    """The picture in a file, mode RGB; transparent parts lie on white. Of several frames the first."""
    with opened(path) as image, sentences(path):
        if image.width * image.height > MAX_MEGAPIXELS * 1e6:
            image.draft(image.mode, (image.width // 2, image.height // 2))  # a JPEG, decoded at half its size
        profile = image.info.get("icc_profile")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return in_srgb(on_white(eight_bit(image)), profile)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The file with its header read and its size checked, but no pixel decoded."""
    with readable(path) as file, strict_pillow():
        with sentences(path):
            image = identified(file, path)
        with image:
            check_size(image, path)
            check_numbers(image, path)
            yield image


@contextlib.contextmanager
def sentences(path: Path) -> Iterator[None]:
    """What Pillow raises while it reads this file, as UserErrors."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path} is far larger than the {MAX_MEGAPIXELS} megapixels ({MAX_MEGAPIXELS_OF_JPEG} of a JPEG) that are "
            f"read ({error}). Scale it down."
        ) from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory. Close other programs, or scale it down.") from error
    except DAMAGED as error:
        raise UserError(
            f"{path} is damaged or cut short ({error}): it cannot be read to its end. Copy or export it again."
        ) from error


@contextlib.contextmanager
def readable(path: Path) -> Iterator[IO[bytes]]:
    """The file, open and not empty."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name one photo inside it.")
    if path.is_fifo():
        raise UserError(f"{path} is a pipe, which cannot be read twice: save the photo as a file first.")
    if path.suffix.lower() in CAMERA_RAW:  # they open as TIFF, and then give their thumbnail
        raise UserError(f"{path} is a camera raw file: develop it first, and give the exported JPEG, PNG or TIFF.")
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: check the spelling, and the folder you are in.") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no disk takes
        raise UserError(f"{path} cannot be opened ({error}): check its name and permissions.") from error
    with file:
        if not file.read(1):
            raise UserError(f"{path} is empty (0 bytes): copy or download it again.")
        file.seek(0)
        yield file


def identified(file: IO[bytes], path: Path) -> Image.Image:
    """Pillow's image for the file, header only. Formats that start other programs (EPS) are never tried."""
    Image.init()
    try:
        return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        file.seek(0)
        start = file.read(12)
        file.seek(0)
        if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
            return opened_heif(file, path)
        if start[:4] in TiffImagePlugin.PREFIXES:
            raise UserError(
                f"{path} is a TIFF of a kind that is not read, such as colours in floating point or 32 bits. "
                "Export it as a TIFF or PNG of 8 or 16 bits."
            ) from error
        taken = ", ".join(sorted(ending[1:] for ending in endings()))
        raise UserError(
            f"{path} is not a picture of a kind that is read, or is damaged. What is read: {taken}."
        ) from error


def check_numbers(image: Image.Image, path: Path) -> None:
    """Refuse what Pillow would read, and wrongly: floats; in TIFFs signed or deep numbers, planes, 16-bit negatives."""
    if image.mode == "F" and image.format != "TIFF":
        raise UserError(f"{path} holds floating-point numbers. Export it as a PNG or TIFF of 8 or 16 bits.")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    bits, kinds = {*tags.get(BITS, (1,))}, {*tags.get(SAMPLE_FORMAT, (1,))}
    planes = tags.get(PLANAR) == 2 and len(tags.get(BITS, (1,))) > 1
    negative = tags.get(PHOTOMETRIC) == 0 and max(bits) > 8
    wrong = negative or (planes and (max(bits) > 8 or image.mode not in IN_PLANES))
    if wrong or not {(kind, size) for kind in kinds for size in bits} <= PLAIN_TIFF:
        how = {1: "unsigned", 2: "signed", 3: "floating point"}
        raise UserError(
            f"{path} is a TIFF of {'/'.join(map(str, sorted(bits)))}-bit "
            f"{'/'.join(how.get(kind, 'unknown') for kind in sorted(kinds))} numbers"
            f"{' in planes' * planes}{', 0 being white' * negative}, which is not read right here. "
            "Export it as a TIFF or PNG of 8 or 16 bits."
        )


def opened_heif(file: IO[bytes], path: Path) -> Image.Image:
    """An iPhone's HEIC photo, with the optional package that can read it."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(
            f"{path} is a HEIC photo. Either pip install pillow-heif, or convert it to JPEG: on a Mac open it in "
            "Preview and choose Export, on an iPhone set Camera > Formats to Most Compatible."
        ) from error
    pillow_heif.register_heif_opener()
    return Image.open(file, formats=["HEIF"])


def check_size(image: Image.Image, path: Path) -> None:
    """Refuse what would fill the memory: a few kilobytes can claim to be 50,000 x 50,000 pixels."""
    megapixels = image.width * image.height / 1e6
    most = MAX_MEGAPIXELS_OF_JPEG if image.format in ("JPEG", "MPO") else MAX_MEGAPIXELS
    if megapixels > most:
        raise UserError(
            f"{path} is {image.width} x {image.height} pixels, {megapixels:.0f} megapixels; at most {most} are read "
            f"from a {image.format} file. Scale it down, or cut out the person."
        )


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Pillow as it is by default: other code in the process may have told it to pad cut files with grey."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")  # of large images and odd EXIF; we refuse or read them
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def eight_bit(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel. Pillow reads 16-bit colour as 8-bit itself; what is left is 16-bit grey."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.array(image, dtype=np.float32) * (255 / 65535)).round().clip(0, 255).astype(np.uint8))


def on_white(image: Image.Image) -> Image.Image:
    """The image without transparency and without a palette."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image.convert("RGBA"))
        return paper.convert("RGB")
    return image.convert("RGB") if image.mode == "P" else image


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in sRGB: by its colour profile, or as Pillow converts its mode if the profile is missing or broken."""
    if image.mode == "LAB":
        return converted(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if profile:
        # A profile that lcms cannot read, or that is for another mode: nearly all such files are sRGB in truth.
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            return converted(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    return image.convert("RGB")


def converted(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    """The image's colours from this profile to sRGB."""
    result = ImageCms.profileToProfile(
        image,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert result is not None  # None only when converting in place
    return result

"""Pictures inside a page: small JPEGs as data URIs, as large as the page's budget allows."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...config import UserError
from ..decode import decode
from ..files import digest
from ..images import RESAMPLER

BUDGET = 3_600_000  # bytes of all pictures of a page, so that the page stays under 5 MB
SIZES = ((160, 82), (144, 80), (128, 76), (112, 72), (96, 68), (80, 60), (64, 50))  # longer side, JPEG quality


@dataclass(frozen=True)
class Thumbnails:
    """Data URIs by the path in results.json, and why some are not there."""

    uris: dict[str, str]
    absent: dict[str, str]
    side: int  # pixels of the longer side


def read_small(path: Path, sha256: str | None = None) -> Image.Image | str:
    """A picture at the largest thumbnail size, or why it cannot be shown: a page must not pass off another one."""
    try:
        data = path.read_bytes()
    except OSError:
        return "not in the run's folder"
    if sha256 is not None and digest(data) != sha256:
        return "changed since it was scored"
    try:
        picture = decode(path)
    except UserError:
        return "cannot be read"
    return _reduced(picture, SIZES[0][0])


def thumbnails(pictures: Mapping[str, Image.Image | str], shown: Iterable[str], budget: int = BUDGET) -> Thumbnails:
    """The largest size at which all shown pictures, repeats included, fit the budget together."""
    there = {key: picture for key, picture in pictures.items() if not isinstance(picture, str)}
    absent = {key: reason for key, reason in pictures.items() if isinstance(reason, str)}
    shown = [key for key in shown if key in there]
    for side, quality in SIZES:
        uris = {key: _data_uri(_reduced(picture, side), quality) for key, picture in there.items()}
        if sum(len(uris[key]) for key in shown) <= budget:
            break
    else:
        raise UserError(f"{len(shown)} pictures do not fit into {budget} bytes; give the report fewer variants.")
    return Thumbnails(uris, absent, side)


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, RESAMPLER)


def _data_uri(picture: Image.Image, quality: int) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()

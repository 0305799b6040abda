"""Pictures to look at: written with what they say of themselves, on pages with captions, or with numbered boxes."""

import importlib.util
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..config import UserError
from ..method.crops import Box
from .files import write_bytes
from .images import RESAMPLER, opened, to_pil, to_tensor
from .text import parse_json

PAGE_WIDTH = 2400  # a page is reduced to this, so that 25 crops of a megapixel stay one viewable file
SMALLEST_CELL = 192  # smaller images are enlarged to it: a caption needs room
PAPER, INK = (250, 250, 248), (45, 45, 50)
CAPTION_LINES = 2

SHORTEST_VIEW, LONGEST_VIEW = 640, 2048  # the longer side of a photo with boxes
COLORS = ((230, 60, 50), (30, 110, 220), (20, 150, 80), (200, 110, 0), (150, 60, 190), (0, 140, 160))
JPEG_QUALITY = 95
SHEET = "sheet"  # what a page of images says it is, so that it is not taken for one

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def table(rows: Sequence[Sequence[tuple[Tensor, str]]]) -> Tensor:
    """A page of captioned images, row under row, all at one scale; rows may differ in length."""
    columns = max(len(row) for row in rows)
    blank = torch.tensor(PAPER).view(3, 1, 1) / 255
    cells = [cell for row in rows for cell in [*row, *[(blank, "")] * (columns - len(row))]]
    return grid([image for image, _ in cells], columns, [label for _, label in cells])


def grid(images: Sequence[Tensor], columns: int, labels: Sequence[str] | None = None) -> Tensor:
    """A page of images [3, H, W] row by row, all at one scale, with a caption under each if there are labels."""
    assert images
    assert labels is None or len(labels) == len(images), (len(labels), len(images))
    columns = min(columns, len(images))
    widest = max(image.shape[2] for image in images)
    longest = max(widest, max(image.shape[1] for image in images))
    scale = min(max(1.0, SMALLEST_CELL / longest), PAGE_WIDTH / columns / widest)
    pictures = [scaled(to_pil(image), scale) for image in images]

    cell = max(picture.width for picture in pictures)
    margin = max(6, cell // 32)
    font = readable_font(cell / 18)
    captions = [wrapped(label, font, cell) for label in labels or [""] * len(images)]
    line = line_height(font)
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    heights = [max(pictures[i].height + margin // 2 + line * len(captions[i]) for i in row) for row in rows]

    page = Image.new(
        "RGB", (columns * (cell + margin) + margin, sum(heights) + margin * (len(rows) + 1) - margin // 2), PAPER
    )
    draw = ImageDraw.Draw(page)
    top = margin
    for row, height in zip(rows, heights, strict=True):
        for column, index in enumerate(row):
            left, picture = margin + column * (cell + margin), pictures[index]
            page.paste(picture, (left + (cell - picture.width) // 2, top))
            for number, text in enumerate(captions[index]):
                y = top + picture.height + margin // 2 + number * line
                draw.text((left + cell / 2, y), text, INK, font, anchor="ma")
        top += height + margin
    return to_tensor(page)


def draw_boxes(photo: Tensor, boxes: Sequence[Box], labels: Sequence[str] | None = None) -> Tensor:
    """The photo with labelled boxes, numbered from 1 if there are no labels; lines and text fit its size."""
    labels = [str(number) for number in range(1, len(boxes) + 1)] if labels is None else labels
    longer = max(photo.shape[1:])
    scale = min(max(longer, SHORTEST_VIEW), LONGEST_VIEW) / longer
    picture = scaled(to_pil(photo), scale)
    draw, line = ImageDraw.Draw(picture), max(2, round(max(picture.size) / 320))
    font = readable_font(max(picture.size) / 36)
    for index, box in enumerate(boxes):
        left, top, right, bottom = (round(edge * scale) for edge in box)
        grown = (left - line // 2 - 1, top - line // 2 - 1, right + line // 2 + 1, bottom + line // 2 + 1)
        draw.rectangle(grown, outline="white", width=line + 2)  # seen on any background
        draw.rectangle((left, top, right, bottom), outline=COLORS[index % len(COLORS)], width=line)
    for index, (box, label) in enumerate(zip(boxes, labels, strict=True)):  # last, so that no box crosses a tag
        draw_tag(draw, box, scale, label, font, COLORS[index % len(COLORS)])
    return to_tensor(picture)


def draw_tag(
    draw: ImageDraw.ImageDraw, box: Box, scale: float, label: str, font: Font, color: tuple[int, int, int]
) -> None:
    """A filled tag on the upper left corner of a box; inside it where there is no room above."""
    width, height = round(font.getbbox(label)[2] + line_height(font) * 0.6), round(line_height(font) * 1.15)
    canvas_width, _ = draw.im.size
    left = max(0, min(round(box.left * scale), canvas_width - width))
    top = round(box.top * scale) - height
    top = top if top >= 0 else round(box.top * scale)
    draw.rectangle((left, top, left + width, top + height), fill=color)
    draw.text((left + width / 2, top + height / 2), label, "white", font, anchor="mm")


def readable_font(size: float) -> Font:
    """A font that comes with a package, so that pictures look the same everywhere; matplotlib's knows most letters."""
    size = max(13, round(size))
    spec = importlib.util.find_spec("matplotlib")  # only for its file
    folders = (spec.submodule_search_locations if spec else None) or []
    for path in (Path(folder) / "mpl-data/fonts/ttf/DejaVuSans.ttf" for folder in folders):
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def line_height(font: Font) -> int:
    """From one line of text to the next."""
    return round((font.getbbox("Ág")[3] - font.getbbox("Ág")[1]) * 1.25)


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """The text in at most two lines of this width; what does not fit ends in an ellipsis."""
    for letters in range(len(text), 0, -1):
        lines = textwrap.wrap(text, letters, max_lines=CAPTION_LINES, placeholder="…")
        if all(font.getlength(line) <= width for line in lines):
            return lines
    return []


def scaled(picture: Image.Image, scale: float) -> Image.Image:
    """The picture this many times as large."""
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, RESAMPLER)


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


def made_here(path: Path) -> dict[str, Any] | None:
    """What one of our PNGs says of how it was made: prompt, seed, lora, ...; None for any other picture."""
    try:
        metadata = parse_json(read_image_metadata(path).get("metalora", ""))
    except ValueError:
        return None
    return metadata if isinstance(metadata, dict) else None

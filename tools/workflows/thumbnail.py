"""The pictures in ComfyUI's template browser: what a workflow is about, from pictures that the repository has."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from metalora.store.pictures import readable_font

ROOT = Path(__file__).parents[2]
SIZE, MARGIN, TITLE = (640, 400), 16, 56
PAPER, INK = (250, 250, 249), (32, 32, 36)
CELL, STEP = 192, (198, 220)  # of docs/demo.jpg: a picture's side, and from one to the next


def thumbnail(name: str) -> bytes:
    """A JPEG of SIZE: the workflow's name without its number, and rows of pictures."""
    picture = Image.new("RGB", SIZE, PAPER)
    ImageDraw.Draw(picture).text((MARGIN, MARGIN), name.split("_", 1)[1].replace("_", " "), INK, readable_font(26))
    rows = pictures_of(int(name[0]))
    height = (SIZE[1] - TITLE - MARGIN * len(rows)) // len(rows)
    for row, pictures in enumerate(rows):
        width = min(height * 2, (SIZE[0] - MARGIN * (len(pictures) + 1)) // len(pictures))
        left = (SIZE[0] - len(pictures) * (width + MARGIN) + MARGIN) // 2
        for column, one in enumerate(pictures):
            fitted = ImageOps.pad(one.convert("RGB"), (width, height), Image.Resampling.LANCZOS, PAPER)
            picture.paste(fitted, (left + column * (width + MARGIN), TITLE + row * (height + MARGIN)))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=88)
    return data.getvalue()


def pictures_of(number: int) -> Sequence[Sequence[Image.Image]]:
    """Rows of pictures for the workflow of this number."""
    photos, without, plain, with_lora = ([demo(column, row) for column in range(5)] for row in range(4))
    match number:
        case 1:  # photo, without a LoRA, with Meta-LoRA
            return [[photos[1], without[1], with_lora[1]]]
        case 2:
            return [[Image.open(ROOT / "metalora/data/astronaut.jpg")]]
        case 3:  # images, compared with photos
            return [photos[2:], with_lora[2:]]
        case 4:
            return [[photos[0], photos[1]]]
        case 5:
            return [[Image.open(ROOT / "docs/frontier.png")]]
        case 6:  # many people
            files = sorted((ROOT / "metalora/data/mini_benchmark/photos").glob("*-0.jpg"))
            return [[Image.open(path) for path in files[row::3][:5]] for row in range(3)]
        case _:  # the same people by several methods
            return [photos, plain, with_lora]


def demo(column: int, row: int) -> Image.Image:
    """A picture of docs/demo.jpg."""
    x, y = (6 + place * step for place, step in zip((column, row), STEP, strict=True))
    return Image.open(ROOT / "docs/demo.jpg").crop((x, y, x + CELL, y + CELL))

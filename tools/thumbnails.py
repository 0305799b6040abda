"""The pictures in ComfyUI's template browser, workflows/*.jpg, from pictures of the docs: python -m tools.thumbnails"""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from metalora.jobs.demo.people import PEOPLE
from metalora.store.files import write_bytes
from metalora.store.pictures import readable_font

ROOT = Path(__file__).parents[1]
SIZE, MARGIN, TITLE = (640, 400), 16, 56
PAPER, INK = (250, 250, 249), (32, 32, 36)
CELL, STEP = 192, (198, 220)  # of docs/demo.jpg: a picture's side, and from one to the next


def thumbnail(name: str) -> io.BytesIO:
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
    return data


def pictures_of(number: int) -> Sequence[Sequence[Image.Image]]:
    """Rows of pictures for the workflow of this number."""
    demo, data = Image.open(ROOT / "docs/demo.jpg"), ROOT / "metalora" / "data"
    corners = [[(6 + column * STEP[0], 6 + row * STEP[1]) for row in range(PEOPLE)] for column in range(4)]
    photos, without, plain, with_lora = (
        [demo.crop((x, y, x + CELL, y + CELL)) for x, y in column] for column in corners
    )
    people = [Image.open(path) for path in sorted((data / "mini_benchmark/photos").glob("*-0.jpg"))]
    return {
        1: [[photos[1], without[1], with_lora[1]]],
        2: [[Image.open(data / "astronaut.jpg")]],
        3: [photos[1:], with_lora[1:]],  # images, compared with photos
        4: [photos[:2]],
        5: [[Image.open(ROOT / "docs/frontier.png")]],
        6: [people[row::3][:5] for row in range(3)],
        7: [photos, plain, with_lora],  # the same people by several methods
    }[number]


if __name__ == "__main__":
    for workflow in sorted((ROOT / "workflows").glob("*.json")):
        write_bytes(workflow.with_suffix(".jpg"), thumbnail(workflow.stem).getvalue())

"""Pages of pictures: looking beats reading."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..store.images import SHEET, read_photo, save_image
from ..store.pictures import table
from .generate import Image


def write_comparison(images: Sequence[Image], path: Path) -> Path:
    """One row a prompt: the images with the LoRA, and beside each the same noise without it where it was made."""
    prompts = list(dict.fromkeys(image.prompt for image in images))
    rows = [
        [
            (read_photo(image.path), f"{prompt} ({'with' if image.lora else 'without'} LoRA, seed {image.seed})")
            for image in images
            if image.prompt == prompt
        ]
        for prompt in prompts
    ]
    save_image(table(rows), path, {"metalora": json.dumps({"kind": SHEET})})
    return path

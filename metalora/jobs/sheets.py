"""Pages of pictures: looking beats reading."""

from collections.abc import Sequence
from pathlib import Path

from ..store.images import read_photo, save_image
from ..store.pictures import grid
from .generate import Image


def write_comparison(images: Sequence[Image], path: Path) -> Path:
    """One row a prompt: the images with the LoRA, and beside each the same noise without it where it was made."""
    prompts = list(dict.fromkeys(image.prompt for image in images))
    columns = max(sum(image.prompt == prompt for image in images) for prompt in prompts)
    pictures, labels = [], []
    for image in images:
        pictures.append(read_photo(image.path))
        labels.append(f"seed {image.seed}, {'with' if image.lora else 'without'} LoRA")
    save_image(grid(pictures, columns, labels), path, {})
    return path

"""What runs inside a prompt: the bar of its node, the Cancel button, tensors that can be trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.utils
import torch
from PIL import Image

PREVIEW = 512  # pixels, the longer side


def stop_if_cancelled() -> None:
    """Raise ComfyUI's own exception if the user pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_bar() -> Callable[[int, int, Image.Image | None], None]:
    """The bar of the node that runs: (done, total, an image to show)."""
    bar = comfy.utils.ProgressBar(1)

    def show(done: int, total: int, image: Image.Image | None = None) -> None:
        bar.update_absolute(done, total, None if image is None else ("JPEG", image, PREVIEW))

    return show


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """ComfyUI runs nodes in inference mode, where nothing can be trained."""
    with torch.inference_mode(False):
        yield

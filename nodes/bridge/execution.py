"""What runs inside a prompt: the bar of its node, the Cancel button."""

from collections.abc import Callable

import comfy.model_management
import comfy.utils
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

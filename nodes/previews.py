"""What a training node shows while it trains: the loss curve, or images with what was learned so far.

A preview happens between two steps. It draws from a generator of its own and changes nothing that the training uses.
"""

import io
import logging
from typing import Any

import torch
from comfy_api.latest import io as comfy_io
from PIL import Image
from torch import Tensor

from ..metalora.backbones.protocol import Prompt
from ..metalora.config import Step
from ..metalora.jobs import Progress, loss_curve, run
from ..metalora.jobs.photos import prompt_embeddings
from ..metalora.store.cache import Cache
from ..metalora.store.images import to_pil
from ..metalora.store.pictures import grid
from .backbone import ComfyBackbone
from .bridge import devices, execution
from .running import Preview

CURVE, IMAGES, NOTHING = "loss curve", "images", "none"
CURVE_EVERY = 25  # steps from one loss curve to the next
LARGEST, COLUMNS = 512, 4  # pixels of a side; images in a row
SAMPLING_STEPS, GUIDANCE = 12, 3.5  # fewer than for a finished image; the CFG too, where a base needs it


def preview_inputs(every: int) -> list[Any]:
    """The widgets."""
    return [
        comfy_io.Combo.Input("preview", options=[CURVE, IMAGES, NOTHING]),
        comfy_io.Int.Input("preview_every", default=every, min=1, max=100_000),
    ]


def cfg_input() -> Any:
    """The widget of a training whose base may be a distilled one."""
    return comfy_io.Float.Input("preview_cfg", default=0.0, min=0.0, max=30.0, step=0.5, optional=True)


def no_preview(_step: Step) -> None:
    """Only the bar."""


class LossPreview:
    """The loss curve so far, now and then."""

    def __init__(self, label: str):
        self.label, self.losses = label, list[float]()

    def __call__(self, step: Step) -> Image.Image | None:
        if step.loss is None:
            return None
        self.losses.append(step.loss)
        if step.index % CURVE_EVERY and step.index != step.total:
            return None
        data: Any = loss_curve({self.label: self.losses})
        return Image.open(io.BytesIO(data)).convert("RGB")


class ImagePreview:
    """Images of one prompt, as the network draws them with the adapters it is wearing, always from the same noise.

    With a CFG above 1 it is led away from the empty prompt; 0 is what the base needs. `count` is how many adapters it
    is wearing: one, or in stage 1 those of the last batch's people.
    """

    def __init__(
        self,
        backbone: ComfyBackbone,
        prompt: Prompt,
        negative: Prompt,
        resolution: int,
        count: int,
        every: int,
        cfg: float = 0.0,
    ):
        side = min(LARGEST, resolution) // backbone.multiple * backbone.multiple
        self.backbone, self.prompt, self.size = backbone, prompt, (side, side)
        cfg = cfg or (GUIDANCE if backbone.needs_cfg else 1.0)
        self.negative = negative if cfg != 1 else None
        self.guidance = cfg if self.negative is not None else GUIDANCE  # of a base that has it built in
        self.count, self.every, self.possible = count, every, True

    def __call__(self, step: Step) -> Image.Image | None:
        if step.loss is None or step.index % self.every or not self.possible:
            return None
        try:
            return to_pil(grid([*map(self.decoded, self.sampled())], COLUMNS))
        except torch.OutOfMemoryError:
            logging.warning("Meta-LoRA: no memory is left for previews; the training goes on without them.")
            self.possible = False
            return None

    @torch.no_grad()
    def sampled(self) -> Tensor:
        """Latents [count, c, h, w]."""
        denoiser = self.backbone.current
        assert denoiser is not None, "a preview belongs between two steps"

        def stop_if_cancelled(_progress: Progress) -> None:
            execution.stop_if_cancelled()

        denoiser.negative = self.negative
        job = denoiser.sample(self.prompt, self.size, SAMPLING_STEPS, self.guidance, range(self.count))
        return run(job, stop_if_cancelled)

    def decoded(self, latents: Tensor) -> Tensor:
        """Latents [c, h, w] as [3, H, W]; roughly where the autoencoder would push the model off the device."""
        if not devices.fits_beside(self.backbone.vae, latents.shape, self.backbone.device):
            return devices.rough_image(self.backbone.model, latents)
        with self.backbone.autoencoder() as autoencoder:
            return autoencoder.decode(latents)


def preview_of(
    kind: str,
    every: int,
    backbone: ComfyBackbone,
    *,
    label: str,
    caption: str,
    resolution: int,
    count: int,
    cache: Cache,
    cfg: float = 0.0,
) -> Preview:
    """The preview that was chosen."""
    if kind == CURVE:
        return LossPreview(label)
    if kind != IMAGES:
        return no_preview
    prompt, negative = run(prompt_embeddings([caption, ""], backbone, cache))
    return ImagePreview(backbone, prompt, negative, resolution, count, every, cfg)

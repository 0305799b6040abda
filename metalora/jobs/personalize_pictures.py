"""Stage 2 from crops that are there as pixels, as ComfyUI's nodes have them: a trained adapter, and no name to choose.

A stopped run is found again by what it was: the same pixels, model and settings go on where it stopped.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..backbones.architecture import Architecture
from ..backbones.protocol import Backbone
from ..config import CropConfig, PersonalizeConfig, UserError
from ..method.adapter import Adapters
from ..method.crops import Box
from ..store import files
from ..store.cache import Cache
from ..store.images import photo_digest
from . import Job
from .meta_downs import starting_adapters
from .personalize import Training, fit, run_metadata
from .photos import Crop, PlannedPhoto
from .resume import SavedRun, fixed_options


@dataclass(frozen=True)
class TrainedAdapter:
    """One person's adapter, what its files say of themselves, and where it was written."""

    adapters: Adapters
    architecture: Architecture
    metadata: dict[str, str]
    file: Path
    training: Training


def personalize_pictures(
    backbone: Backbone,
    crops: Sequence[Tensor],
    out: Path,
    states: Path,
    config: PersonalizeConfig,
    *,
    flips: bool,
    meta_down: str | None,
    cache: Cache,
    heads: Sequence[Tensor] = (),
    latest: dict[str, TrainedAdapter] | None = None,
) -> Job[TrainedAdapter]:
    """Fit heads (or a plain LoRA) to crops [3, H, W] in 0..1 and write the adapter file `out`.

    Crops are trained at their own sizes, but for the few pixels that the model's tokens cannot hold. `heads` [H, W] in
    0..1, one for each crop, say where `background_weight` does not count. `latest` holds the training before: where it
    was the same one, only `out` is written.
    """
    if not crops:
        raise UserError("No crop was given.")
    check_heads(heads, crops, config)
    files.check_writable(out)
    files.check_writable(states / "state")
    adapters, origin = starting_adapters(backbone, config, meta_down)
    drawn: Sequence[Tensor | None] = heads or [None] * len(crops)
    planned = [as_it_is(crop, backbone.multiple, head) for crop, head in zip(crops, drawn, strict=True)]
    crop_config = CropConfig(resolution=resolution_of(planned), flips=flips)
    metadata = run_metadata(backbone, config, crop_config, planned, origin)
    if heads and config.background_weight < 1:
        metadata["heads"] = files.digest_of_tensors({str(index): head for index, head in enumerate(heads)})
    run = json.dumps([metadata, backbone.fingerprint("text_encoders"), backbone.fingerprint("autoencoder")])
    if latest and run in latest:
        files.write(out, latest[run].adapters.tensors(), "adapter", metadata)
        return replace(latest[run], file=out)
    saved = SavedRun(states / f"{name_of_run(metadata)}.state.safetensors", metadata)
    training = yield from fit(backbone, planned, adapters, config, crop_config, saved, cache)
    files.write(out, adapters.tensors(), "adapter", metadata)
    saved.remove()
    trained = TrainedAdapter(adapters, backbone.architecture, metadata, out, training)
    if latest is not None:
        latest.clear()
        latest[run] = trained
    return trained


def check_heads(heads: Sequence[Tensor], crops: Sequence[Tensor], config: PersonalizeConfig) -> None:
    """Refuse heads that do not belong to the crops, and a background that nobody can tell from them."""
    if config.background_weight < 1 and not heads:
        raise UserError(
            f"background_weight is {config.background_weight:g}, but nothing says where the heads are: connect `heads` "
            "of Augment Face Crops, or masks of your own, one for each crop; or leave it at 1."
        )
    if heads and len(heads) != len(crops):
        raise UserError(
            f"heads has {len(heads)} masks and crops {len(crops)} images: connect both to the same Augment Face Crops."
        )
    for index, (head, crop) in enumerate(zip(heads, crops, strict=False), 1):
        if head.shape != crop.shape[1:]:
            mask, image = (f"{one.shape[-1]} x {one.shape[-2]}" for one in (head, crop))
            raise UserError(f"heads: mask {index} is {mask} pixels, its crop {image}.")


def as_it_is(crop: Tensor, multiple: int, head: Tensor | None = None) -> PlannedPhoto:
    """A crop as a photo with one crop: all of it."""
    height, width = crop.shape[-2:]
    size = (width // multiple * multiple, height // multiple * multiple)
    if not all(size):
        raise UserError(f"A crop is {width} x {height} pixels; at least {multiple} x {multiple} are needed.")
    return PlannedPhoto(crop, photo_digest(crop), None, [Crop(Box(0, 0, width, height), size)], [], head)


def resolution_of(planned: Sequence[PlannedPhoto]) -> int:
    """The side of a square as large as the largest crop: what memory is estimated for."""
    pixels = max(crop.size[0] * crop.size[1] for photo in planned for crop in photo.crops)
    side = round(math.sqrt(pixels))
    if side > 2048:
        raise UserError(
            f"The largest crop has {pixels / 1e6:.1f} megapixels, more than can be trained on. "
            "Make crops with Augment Face Crops, or scale the image down to about a megapixel."
        )
    return max(64, side)


def name_of_run(metadata: dict[str, str]) -> str:
    """The same for runs that may go on from each other's state."""
    options = fixed_options(json.loads(metadata["options"]))
    return files.digest(json.dumps({**metadata, "options": options}, sort_keys=True).encode())[:16]

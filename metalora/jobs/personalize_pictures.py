"""Stage 2 from crops that are there as pixels, as ComfyUI's nodes have them: a trained adapter, and no name to choose.

A stopped run is found again by what it was: the same pixels, model and settings go on where it stopped.
"""

import copy
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
from .personalize import Training, fit, run_metadata
from .photos import Crop, PlannedPhoto
from .training_files import IntermediateLoras, SavedRun, fixed_options, starting_adapters


@dataclass(frozen=True)
class TrainedAdapter:
    """One person's adapter, what its files say of themselves, where it is, and how its training went if it was now."""

    adapters: Adapters
    architecture: Architecture
    metadata: dict[str, str]
    file: Path
    training: Training | None = None


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
    captions: Sequence[str] = (),
    start: TrainedAdapter | None = None,
    loras: Path | None = None,
    latest: dict[str, TrainedAdapter] | None = None,
) -> Job[TrainedAdapter]:
    """Fit heads (or a plain LoRA) to crops [3, H, W] in 0..1 and write the adapter file `out`.

    Crops are trained at their own sizes, but for the few pixels that the model's tokens cannot hold. `heads` [H, W] in
    0..1, one for each crop, say where `background_weight` does not count; `captions`, one for each or one for all, what
    a crop shows, "" for the run's caption. With `start` the training goes on from another's adapter, whose method, rank
    and sites it keeps. `loras` is the file beside which the LoRAs of `lora_every` are written. `latest` holds the
    training before: where it was the same one, only `out` is written.
    """
    if not crops:
        raise UserError("No crop was given.")
    check_heads(heads, crops, config)
    files.check_writable(out)
    files.check_writable(states / "state")
    if start is None:
        adapters, origin = starting_adapters(backbone, config, meta_down)
    else:
        adapters, origin = continued(start, backbone, config)
    drawn: Sequence[Tensor | None] = heads or [None] * len(crops)
    said = own_captions(captions, len(crops), config)
    planned = [
        replace(as_it_is(crop, backbone.multiple, head), caption=caption)
        for crop, head, caption in zip(crops, drawn, said, strict=True)
    ]
    crop_config = CropConfig(resolution=resolution_of(planned), flips=flips)
    metadata = run_metadata(backbone, config, crop_config, planned, origin)
    if heads and config.background_weight < 1:
        metadata["heads"] = files.digest_of_tensors({str(index): head for index, head in enumerate(heads)})
    run = json.dumps([metadata, backbone.fingerprint("text_encoders"), backbone.fingerprint("autoencoder")])
    if latest and run in latest:
        files.write(out, latest[run].adapters.tensors(), "adapter", metadata)
        return replace(latest[run], file=out)
    saved = SavedRun(states / f"{name_of_run(metadata)}.state.safetensors", metadata)
    intermediate = IntermediateLoras(loras or out, "diffusers", backbone.architecture, metadata, adapters, config)
    if not saved.path.is_file():
        intermediate.check_free()
    training = yield from fit(backbone, planned, adapters, config, crop_config, saved, cache, intermediate)
    files.write(out, adapters.tensors(), "adapter", metadata)
    saved.remove()
    trained = TrainedAdapter(adapters, backbone.architecture, metadata, out, training)
    if latest is not None:
        latest.clear()
        latest[run] = trained
    return trained


def as_started(config: PersonalizeConfig, start: TrainedAdapter) -> PersonalizeConfig:
    """The settings with the method, rank and sites of the adapter that a training goes on from."""
    first = next(iter(start.adapters.by_name.values()))
    method = "lora" if first.mid is None else "meta-lora"
    sites = start.metadata.get("sites", config.sites)
    return replace(config, method=method, rank=first.up.shape[1], scale=first.scale, sites=sites)


def continued(start: TrainedAdapter, backbone: Backbone, config: PersonalizeConfig) -> tuple[Adapters, dict[str, str]]:
    """A copy of another training's adapter at this base's sites, and where it comes from."""
    files.check_base(start.file, start.metadata, backbone.name)
    sites = backbone.sites(config.sites)
    if {(site.name, site.in_features, site.out_features) for site in sites} != {
        (name, one.down.shape[1], one.up.shape[0]) for name, one in start.adapters.by_name.items()
    }:
        raise UserError(f"{start.file} has adapters at other layers than this {backbone.name}: train anew.")
    adapters = {site.name: copy.deepcopy(start.adapters.by_name[site.name]) for site in sites}
    for weight in (weight for adapter in adapters.values() for weight in adapter.parameters()):
        weight.data = weight.data.float().cpu()
        weight.requires_grad_(True)
    origin = {key: value for key, value in start.metadata.items() if key.startswith("meta_")}
    return Adapters(sites, adapters), origin | {"continues": files.digest_of_tensors(start.adapters.tensors())}


def own_captions(captions: Sequence[str], count: int, config: PersonalizeConfig) -> list[str]:
    """A caption for each crop, filled in as the run's is; "" where that one serves."""
    if len(captions) not in (0, 1, count):
        raise UserError(
            f"captions has {len(captions)} texts and crops {count} images: connect both to the same Augment Face Crops."
        )
    said = list(captions) * (count if len(captions) == 1 else 1) or [""] * count
    return [replace(config, caption=text.strip()).prompt if text.strip() else "" for text in said]


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

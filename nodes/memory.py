"""Whether a training fits the user's device, asked before anything is loaded."""

import dataclasses
from collections.abc import Callable

from ..metalora.config import CropConfig, PersonalizeConfig, UserError
from ..metalora.config_meta_train import MetaTrainConfig
from ..metalora.jobs.memory import RESERVE, TrainingMemory, estimate, wants_checkpointing
from ..metalora.jobs.meta_train.memory import stage_one_memory
from .backbone import ComfyBackbone
from .bridge import devices

SIZES = range(64, 2049, 64)


def make_room(backbone: ComfyBackbone, config: PersonalizeConfig, resolution: int) -> None:
    """Refuse what cannot fit; else have ComfyUI unload what is in the way, and keep room for activations when it loads.

    Weights may stay offloaded, so only what training itself needs must fit on the device.
    """
    crops = CropConfig(resolution=resolution)
    careful = dataclasses.replace(config, batch=1, gradient_checkpointing="on")

    def least(size: int) -> TrainingMemory:
        return estimate(backbone, careful, CropConfig(resolution=size), checkpointing=True)

    possible = estimate(backbone, config, crops, checkpointing=config.gradient_checkpointing != "off")
    refuse_what_cannot_fit(backbone, possible, resolution, least)
    devices.free_device(backbone.device, estimate(backbone, config, crops, checkpointing=False).total)
    chosen = estimate(backbone, config, crops, checkpointing=wants_checkpointing(backbone, config, crops))
    backbone.training_memory = beside_weights(chosen)


def make_room_for_stage_one(backbone: ComfyBackbone, config: MetaTrainConfig) -> None:
    """The same for stage 1, in which Meta-Down and more of it are trained."""

    def least(size: int) -> TrainingMemory:
        careful = dataclasses.replace(config, batch=1, gradient_checkpointing=True, resolution=size)
        return stage_one_memory(backbone, careful)

    need = stage_one_memory(backbone, config)
    refuse_what_cannot_fit(backbone, need, config.resolution, least)
    devices.free_device(backbone.device, need.total)
    backbone.training_memory = beside_weights(need)


def refuse_what_cannot_fit(
    backbone: ComfyBackbone, need: TrainingMemory, resolution: int, least: Callable[[int], TrainingMemory]
) -> None:
    """Say what would fit; `least` gives the smallest need at a resolution."""
    total = devices.total_memory(backbone.device)
    if beside_weights(need) <= total:
        return
    fitting = [size for size in SIZES if beside_weights(least(size)) <= total]
    advice = (
        f"With batch 1 and gradient_checkpointing on, {max(fitting)} x {max(fitting)} pixels would fit."
        if fitting
        else "Not even the smallest pictures would fit: train on another device."
    )
    raise UserError(
        f"Training at {resolution} x {resolution} pixels needs about {beside_weights(need) / 1e9:.1f} GB on "
        f"{backbone.device} beside the model, and it has {total / 1e9:.1f} GB. {advice}"
    )


def beside_weights(need: TrainingMemory) -> int:
    """Bytes that must be on the device at once."""
    return need.activations + need.adapters + int(RESERVE)

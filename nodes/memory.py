"""Whether a training fits the user's device, asked before anything is loaded."""

import dataclasses

from ..metalora.backbones.memory import RESERVE, TrainingMemory
from ..metalora.config import CropConfig, PersonalizeConfig, UserError
from ..metalora.jobs.memory import estimate, wants_checkpointing
from .backbone import ComfyBackbone
from .bridge import devices

SIZES = range(64, 2049, 64)


def make_room(backbone: ComfyBackbone, config: PersonalizeConfig, resolution: int) -> None:
    """Refuse what cannot fit; else have ComfyUI unload what is in the way, and keep room for activations when it loads.

    Weights may stay offloaded, so only what training itself needs must fit on the device.
    """
    crops = CropConfig(resolution=resolution)
    total = devices.total_memory(backbone.device)
    least = estimate(backbone, config, crops, checkpointing=config.gradient_checkpointing != "off")
    if beside_weights(least) > total:
        raise UserError(
            f"Training at {resolution} x {resolution} pixels needs about {beside_weights(least) / 1e9:.1f} GB on "
            f"{backbone.device} beside the model, and it has {total / 1e9:.1f} GB. {what_would_fit(backbone, config)}"
        )
    devices.free_device(backbone.device, estimate(backbone, config, crops, checkpointing=False).total)
    chosen = estimate(backbone, config, crops, checkpointing=wants_checkpointing(backbone, config, crops))
    backbone.training_memory = beside_weights(chosen)


def beside_weights(need: TrainingMemory) -> int:
    """Bytes that must be on the device at once."""
    return need.activations + need.adapters + int(RESERVE)


def what_would_fit(backbone: ComfyBackbone, config: PersonalizeConfig) -> str:
    """The largest resolution that would, as advice."""
    total = devices.total_memory(backbone.device)
    careful = dataclasses.replace(config, batch=1, gradient_checkpointing="on")
    fitting = [
        size
        for size in SIZES
        if beside_weights(estimate(backbone, careful, CropConfig(resolution=size), checkpointing=True)) <= total
    ]
    if not fitting:
        return "Not even the smallest crops would fit: train on another device."
    return f"With batch 1 and gradient_checkpointing on, crops of {max(fitting)} x {max(fitting)} pixels would fit."

"""Whether a personalization fits: the arithmetic of the backbone against what is free on the device."""

import psutil
import torch

from ..backbones.checkpointing import Checkpointing
from ..backbones.flux import FluxBackbone
from ..backbones.memory import RESERVE, TrainingMemory, training_memory
from ..backbones.protocol import Backbone
from ..config import CropConfig, PersonalizeConfig
from ..method.crops import training_size


def estimate(
    backbone: Backbone, config: PersonalizeConfig, crop_config: CropConfig, *, checkpointing: int
) -> TrainingMemory:
    """The arithmetic of `backbones.memory`; a square crop stands for all, which have the same area."""
    return training_memory(
        backbone.shape,
        backbone.sites(config.sites),
        size=training_size(1.0, crop_config.resolution, backbone.multiple),
        batch=config.batch,
        rank=config.rank,
        meta_rank=config.meta_rank if config.method == "meta-lora" else None,
        bytes_per_number=torch.finfo(backbone.dtype).bits // 8,
        checkpointing=checkpointing,
        text_tokens=backbone.max_tokens,
        eight_bit=isinstance(backbone, FluxBackbone) and backbone.speed.eight_bit,
    )


def free_memory(device: torch.device) -> int:
    """Bytes free on the device; what the CPU has is what programs can still get."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def wants_checkpointing(backbone: Backbone, config: PersonalizeConfig, crop_config: CropConfig) -> Checkpointing:
    """What "auto" means: compute as little again as fits; as long as nothing fits, everything."""
    if config.gradient_checkpointing != "auto":
        return Checkpointing(config.gradient_checkpointing == "on")
    selective = [Checkpointing.SELECTIVE] if backbone.device.type == "cuda" else []  # a CPU is slower choosing
    for how in (Checkpointing.NONE, *selective):
        if fits(estimate(backbone, config, crop_config, checkpointing=how), backbone.device):
            return how
    return Checkpointing.FULL


def memory_warning(
    backbone: Backbone, config: PersonalizeConfig, crop_config: CropConfig, checkpointing: int
) -> str | None:
    """A sentence if the job looks too large. It is an estimate, so the job is tried all the same."""
    need = estimate(backbone, config, crop_config, checkpointing=checkpointing)
    if fits(need, backbone.device):
        return None
    return (
        f"warning: about {need.total / 1e9:.1f} GB are needed on {backbone.device} and "
        f"{free_memory(backbone.device) / 1e9:.1f} GB are free; it may run out of memory"
    )


def fits(need: TrainingMemory, device: torch.device) -> bool:
    """Whether the device has that much free, and on a GPU a reserve beside it."""
    return need.total + (RESERVE if device.type != "cpu" else 0) <= free_memory(device)

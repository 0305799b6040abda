"""Whether a personalization fits: the arithmetic of the backbone against what is free on the device."""

import psutil
import torch

from ..backbones.memory import RESERVE, TrainingMemory, training_memory
from ..backbones.pipeline import PipelineBackbone
from ..backbones.protocol import Backbone
from ..backbones.speed import AS_IT_IS, Checkpointing, Speed
from ..config import CropConfig, PersonalizeConfig
from ..method.crops import training_size


def estimate(
    backbone: Backbone,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    *,
    checkpointing: int,
    speed: Speed | None = None,
) -> TrainingMemory:
    """The arithmetic of `backbones.memory`, by default at the backbone's own speed.

    A square crop stands for all, which have the same area.
    """
    speed = speed or (backbone.speed if isinstance(backbone, PipelineBackbone) else AS_IT_IS)
    return training_memory(
        backbone.architecture,
        backbone.sites(config.sites),
        size=training_size(1.0, crop_config.resolution, backbone.multiple),
        batch=config.batch,
        rank=config.rank,
        meta_rank=config.meta_rank if config.method == "meta-lora" else None,
        bytes_per_number=torch.finfo(backbone.dtype).bits // 8,
        checkpointing=checkpointing,
        text_tokens=backbone.caption_tokens,
        eight_bit=speed.eight_bit,
        four_bit=speed.four_bit,
        swapped_blocks=speed.swapped_blocks,
    )


def free_memory(device: torch.device) -> int:
    """Bytes free on the device; what the CPU has is what programs can still get."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def cap_memory(device: torch.device, limit: float) -> None:
    """From here on the process gets no more of this GPU than so many bytes: a smaller card is imitated."""
    whole = torch.cuda.get_device_properties(device).total_memory
    # By its number, or None for the present one: torch refuses a "cuda" without a number here, and only here.
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / whole), device.index)


def room(backbone: Backbone) -> int:
    """Bytes that may be used on the backbone's device: what is free, or less where a smaller card is imitated."""
    free = free_memory(backbone.device)
    limit = backbone.memory_limit if isinstance(backbone, PipelineBackbone) else None
    return free if limit is None else min(free, limit)


def wants_checkpointing(backbone: Backbone, config: PersonalizeConfig, crop_config: CropConfig) -> Checkpointing:
    """What "auto" means: compute as little again as fits; as long as nothing fits, everything."""
    if config.gradient_checkpointing != "auto":
        return Checkpointing(config.gradient_checkpointing == "on")
    selective = [Checkpointing.SELECTIVE] if backbone.device.type == "cuda" else []  # a CPU is slower choosing
    for how in (Checkpointing.NONE, *selective):
        if fits(estimate(backbone, config, crop_config, checkpointing=how), backbone):
            return how
    return Checkpointing.FULL


def memory_warning(
    backbone: Backbone, config: PersonalizeConfig, crop_config: CropConfig, checkpointing: int
) -> str | None:
    """A sentence if the job looks too large. It is an estimate, so the job is tried all the same."""
    need = estimate(backbone, config, crop_config, checkpointing=checkpointing)
    if fits(need, backbone):
        return None
    return (
        f"warning: about {need.total / 1e9:.1f} GB are needed on {backbone.device} and "
        f"{room(backbone) / 1e9:.1f} GB are free; it may run out of memory"
    )


def fits(need: TrainingMemory, backbone: Backbone) -> bool:
    """Whether its device has that much free, and on a GPU a reserve beside it."""
    return need.total + reserve(backbone) <= room(backbone)


def reserve(backbone: Backbone) -> float:
    """Bytes that a GPU, or its imitation, needs for itself."""
    imitated = isinstance(backbone, PipelineBackbone) and backbone.memory_limit is not None
    return RESERVE if imitated or backbone.device.type != "cpu" else 0

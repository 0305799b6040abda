"""Whether stage 1 fits, by arithmetic: asked before anything is loaded.

It is refused and not tried, unlike stage 2: photos are encoded first, and a bucket's warm-up needs less than what
follows it, so that without this a run would break off after hours.
"""

import os
from dataclasses import replace

import torch

from ...backbones.protocol import Backbone
from ...config import UserError
from ...config_meta_train import MetaTrainConfig
from ...method.across_photos import NARROW, WIDE
from ..memory import TrainingMemory, adapter_numbers, free_memory, memory_on

EMBEDDING = 512  # numbers of a face embedding, at most: FaceNet's and ArcFace's; SFace's has 128


def stage_one_memory(backbone: Backbone, config: MetaTrainConfig, processes: int = 1) -> TrainingMemory:
    """What one of so many processes needs while everything that is trained moves."""
    sites, share = backbone.sites(config.sites), -(-config.batch // processes)
    bytes_per_number = torch.finfo(backbone.dtype).bits // 8
    # As a plain LoRA: the Meta-Down is trained, so that layers keep their inputs (within 3%).
    need = memory_on(backbone, config, config.resolution, share, None, config.gradient_checkpointing)
    if config.objective == "paper":
        # The Meta-Down and the heads of so many people, with AdamW's moments; the worn copies with their gradients.
        people = -(-config.bucket_people // processes)
        heads, down = adapter_numbers(sites, config.rank, config.meta_rank)
        return replace(need, adapters=4 * (4 * down + 3 * people * heads + 4 * share * heads))
    # Meta-Down, shared up and generator, with gradients and AdamW's moments; each sample's gains, with gradients.
    matrices, _ = adapter_numbers(sites, config.meta_rank, None)
    gains = config.meta_rank * len(sites)
    generator = (EMBEDDING + 1) * WIDE + (WIDE + 1) * NARROW + (NARROW + 1) * gains
    # Layers compute in the base's precision: where that is not float32, the matrices' copies wait for backward.
    copies = bytes_per_number * matrices if bytes_per_number < 4 else 0
    return replace(need, adapters=4 * (4 * (matrices + generator) + 2 * share * gains) + copies)


def check_memory(backbone: Backbone, config: MetaTrainConfig, processes: int = 1) -> None:
    """Refuse what cannot fit, with what would change it."""
    need = stage_one_memory(backbone, config, processes).total * sharing(backbone.device)
    free = free_memory(backbone.device)
    if need <= free:
        return
    saving = stage_one_memory(backbone, replace(config, gradient_checkpointing=True), processes).total
    saving *= sharing(backbone.device)
    advice = "a lower --resolution or --batch, or more processes on other GPUs"
    if not config.gradient_checkpointing:
        advice = f"--gradient-checkpointing (then about {saving / 1e9:.1f} GB), {advice}"
    raise UserError(
        f"Stage 1 at {config.resolution} px, batch {config.batch}, needs about {need / 1e9:.1f} GB on "
        f"{backbone.device}, and {free / 1e9:.1f} GB are free. Use {advice}."
    )


def sharing(device: torch.device) -> int:
    """How many processes share the device's memory: each has a GPU of its own, and all have one machine."""
    return 1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", 1))

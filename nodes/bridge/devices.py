"""Models on their device, and how much room there is."""

from typing import Any

import comfy.model_management
import torch


def load_on_device(patcher: Any, memory: int = 0) -> Any:
    """A clone of a MODEL on its device, with `memory` bytes left for us; what does not fit stays offloaded."""
    clone = patcher.clone()
    comfy.model_management.load_models_gpu([clone], memory_required=memory)
    return clone


def free_device(device: torch.device, memory: int) -> None:
    """Make room: ComfyUI keeps models of earlier prompts until somebody asks."""
    comfy.model_management.free_memory(memory, device)
    comfy.model_management.soft_empty_cache()


def total_memory(device: torch.device) -> int:
    """Bytes of the device, free or not."""
    return int(comfy.model_management.get_total_memory(device))

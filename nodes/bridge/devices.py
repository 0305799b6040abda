"""Models on their device, and how much room there is."""

from typing import Any

import comfy.model_management
import torch
from torch import Tensor

DECODING = 2  # times the memory that decoding is said to need: what must be free for it


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


def fits_beside(vae: Any, shape: tuple[int, ...], device: torch.device) -> bool:
    """Whether latents [c, h, w] can be decoded without ComfyUI pushing another model off the device."""
    if vae.device.type == "cpu" or vae.device != device:
        return True
    need = vae.memory_used_decode((1, *shape), vae.vae_dtype) + vae.patcher.model_size()
    return comfy.model_management.get_free_memory(device) > DECODING * need


def rough_image(model: Any, latents: Tensor) -> Tensor:
    """Latents [c, h, w] as colours [3, h, w], by the map that ComfyUI's own previews use; grey where it has none."""
    known = model.model.latent_format
    if known.latent_rgb_factors is None or len(known.latent_rgb_factors) != len(latents):
        grey = latents.mean(0, keepdim=True).expand(3, -1, -1)
        return (grey / 4 + 0.5).clamp(0, 1)
    bias = torch.tensor(known.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
    colours = latents.movedim(0, -1) @ torch.tensor(known.latent_rgb_factors) + bias
    return ((colours + 1) / 2).clamp(0, 1).movedim(-1, 0)

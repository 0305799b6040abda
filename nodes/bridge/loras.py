"""LoRAs as ComfyUI's own loader sees them, and adapters on a MODEL."""

from collections.abc import Callable
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.patcher_extension
import torch
from torch import Tensor, nn

KEY = "metalora"  # of what we hang on a MODEL


def unmatched_keys(model: Any, lora: dict[str, Tensor]) -> list[str]:
    """The keys of a LoRA that ComfyUI's own loader would not use on this MODEL."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora), names, log_missing=False)
    used = {key for patch in patches.values() for key in patch.loaded_keys}
    return sorted(lora.keys() - used)


def with_live_adapters(model: Any, attached: Callable[[nn.Module, torch.device], Any]) -> Any:
    """A clone of a MODEL that computes with adapters; they are attached only while the network runs."""
    clone = model.clone()

    def run(executor: Any, latents: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with attached(executor.class_obj, latents.device):
            return executor(latents, *args, **kwargs)

    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, KEY, run)
    return clone

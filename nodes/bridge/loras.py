"""LoRAs as ComfyUI's own loader sees them."""

from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.sd
from torch import Tensor


def unmatched_keys(model: Any, lora: dict[str, Tensor]) -> list[str]:
    """The keys of a LoRA that ComfyUI's own loader would not use on this MODEL."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora), names, log_missing=False)
    used = {key for patch in patches.values() for key in patch.loaded_keys}
    return sorted(lora.keys() - used)


def with_lora(model: Any, lora: dict[str, Tensor]) -> Any:
    """A clone of a MODEL that wears a LoRA: what the stock loader makes of its file."""
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]

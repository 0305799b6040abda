"""Krea 2, Raw and Turbo: prompts are stacks of several layers of a Qwen3-VL."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..family import MASK, Family, Releases, linear_shift, pack, positions, unpack
from ..protocol import Prompt

TURBO_SHIFT = 1.15  # the exponent that its pipeline takes for Turbo, whatever the size of the image


class Krea2(Family):
    """Guidance is counted from 0, as its pipeline counts: Turbo takes 0, Raw 4.5."""

    name = "krea-2"
    pipeline, transformer, since = "Krea2Pipeline", "Krea2Transformer2DModel", "0.39"
    guided_from = 0.0
    template = "<|im_end|>\n<|im_start|>assistant\n"
    releases: ClassVar[Releases] = {"krea-2": {"num_layers": 28, "num_attention_heads": 48, "attention_head_dim": 128}}

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """Without the padding in the middle of the template: nothing reads it, and it has no place of its own."""
        tokens, real = encoders.encode_prompt(text, device=encoders.text_encoder.device)
        return {"tokens": tokens[:, real[0]]}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """All of the text is at the origin, in front of the image."""
        _, _, h, w = latents.shape
        text = torch.zeros(prompt["tokens"].shape[1], 3)
        predicted = network(
            hidden_states=pack(latents),
            encoder_hidden_states=prompt["tokens"],
            timestep=t.to(latents.dtype),
            position_ids=torch.cat([text, positions(h // 2, w // 2)]).to(latents.device),
            encoder_attention_mask=prompt.get("tokens" + MASK),
            return_dict=False,
        )[0]
        return unpack(predicted, h, w)

    def shift(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> float:
        """Raw's grows with the image, Turbo's does not."""
        return TURBO_SHIFT if settings.get("is_distilled") else linear_shift(config, tokens)

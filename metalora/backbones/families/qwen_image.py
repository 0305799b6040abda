"""Qwen-Image: prompts are of any length, and guidance leaves each token's velocity its length."""

from typing import Any, ClassVar

from torch import Tensor

from ..family import MASK, Family, Releases, pack, unpack
from ..protocol import Prompt


class QwenImage(Family):
    """The text-to-image base of 20 billion parameters."""

    name = "qwen-image"
    pipeline, transformer = "QwenImagePipeline", "QwenImageTransformer2DModel"
    since = "0.37"  # the first that leaves padding out of attention
    max_tokens = 1024
    releases: ClassVar[Releases] = {
        "qwen-image": {"num_layers": 60, "num_attention_heads": 24, "attention_head_dim": 128}
    }

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """The last layer of a Qwen2.5-VL, without the template before the prompt."""
        return {"tokens": encoders.encode_prompt(text, device=encoders.text_encoder.device)[0]}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """Positions come from the size of the image."""
        b, _, h, w = latents.shape
        predicted = network(
            hidden_states=pack(latents),
            timestep=t,
            encoder_hidden_states=prompt["tokens"],
            encoder_hidden_states_mask=prompt.get("tokens" + MASK),
            img_shapes=[[(1, h // 2, w // 2)]] * b,
            return_dict=False,
        )[0]
        return unpack(predicted, h, w)

    def guided(self, with_prompt: Tensor, without: Tensor, guidance: float) -> Tensor:
        """The usual direction, with the length that each token's velocity had."""
        _, _, h, w = with_prompt.shape
        wanted, there = pack(with_prompt), pack(super().guided(with_prompt, without, guidance))
        return unpack(there * (wanted.norm(dim=-1, keepdim=True) / there.norm(dim=-1, keepdim=True)), h, w)

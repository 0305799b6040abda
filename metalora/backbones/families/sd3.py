"""Stable Diffusion 3.5: two CLIPs and T5, latents that the network cuts into patches itself."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ..family import Family, Releases
from ..protocol import Prompt


class StableDiffusion3(Family):
    """3.5 medium and large."""

    name = "sd3.5"
    pipeline, transformer, since = "StableDiffusion3Pipeline", "SD3Transformer2DModel", "0.35"
    packed = 1
    padded = True
    max_tokens, ends = 256, 1  # of T5's; the CLIPs read 77
    releases: ClassVar[Releases] = {
        "sd3.5-medium": {"num_layers": 24, "num_attention_heads": 24, "qk_norm": "rms_norm"},
        "sd3.5-large": {"num_layers": 38, "num_attention_heads": 38, "qk_norm": "rms_norm"},
    }

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """CLIP's tokens before T5's, and both CLIPs' pooled outputs side by side."""
        tokens, _, pooled, _ = encoders.encode_prompt(
            *(text, text, text),
            device=encoders.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_tokens,
        )
        return {"tokens": tokens, "pooled": pooled}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """Times are counted in thousandths."""
        return network(
            hidden_states=latents,
            timestep=1000 * t,
            encoder_hidden_states=prompt["tokens"],
            pooled_projections=prompt["pooled"],
            return_dict=False,
        )[0]

    def schedule(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> Tensor:
        """The scheduler's own times, down to the smallest that it was trained with."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler.from_config(dict(config))
        scheduler.set_timesteps(steps)
        return scheduler.sigmas

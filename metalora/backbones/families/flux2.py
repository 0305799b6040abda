"""FLUX.2-klein: its latents are 2 x 2 patches already, and every prompt is 512 tokens of a Qwen3."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..family import Family, Releases, positions
from ..protocol import Prompt


class Flux2Klein(Family):
    """Base and distilled klein; FLUX.2-dev, which takes a guidance and a Mistral, is another pipeline."""

    name = "flux.2-klein"
    pipeline, transformer, since = "Flux2KleinPipeline", "Flux2Transformer2DModel", "0.37"
    cell, packed = 16, 1
    padded = True
    template = "<|im_start|>user\n"
    releases: ClassVar[Releases] = {
        "flux.2-klein-4b": {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24},
        "flux.2-klein-9b": {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32},
    }

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """The padding is read as well: nothing masks it."""
        return {"tokens": encoders.encode_prompt(text, device=encoders.text_encoder.device)[0]}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """A position is (image, row, column, place in the text)."""
        b, c, h, w = latents.shape
        tokens = prompt["tokens"]
        places = torch.arange(tokens.shape[1], device=latents.device)[:, None]
        predicted = network(
            hidden_states=latents.flatten(2).mT,
            timestep=t.to(latents.dtype),
            guidance=None,
            encoder_hidden_states=tokens,
            txt_ids=torch.nn.functional.pad(places, (3, 0)),
            img_ids=torch.nn.functional.pad(positions(h, w), (0, 1)).to(latents.device),
            return_dict=False,
        )[0]
        return predicted.mT.reshape(b, c, h, w)

    def shift(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> float:
        """A fit to the numbers of tokens and of steps."""
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return compute_empirical_mu(tokens, steps)

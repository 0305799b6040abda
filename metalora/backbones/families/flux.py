"""FLUX.1: T5's tokens and CLIP's one vector of a prompt, and guidance as an input of the network."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...method.flow import shifted
from ..architecture import FluxShape
from ..family import Family, linear_shift, pack, positions, unpack
from ..flux_configs import autoencoder_config, clip_config, scheduler_config, t5_config, transformer_config

FOR_CLIP = 77  # tokens


class Flux(Family):
    """dev and schnell."""

    name = "flux.1"
    pipeline, transformer, since = "FluxPipeline", "FluxTransformer2DModel", "0.35"
    padded = True
    guided_from = math.inf
    encoder_files: ClassVar[Mapping[str, str]] = {"clip_l": "text_encoder", "t5xxl": "text_encoder_2"}
    unasked = ("peft", "scipy", "bitsandbytes", "torchvision")
    unasked_by_models = ("transformers",)

    def known(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The hub wants a login for them."""
        shape = self.architecture(config)
        return {
            "model_index.json": {
                "_class_name": self.pipeline,
                "transformer": ["diffusers", self.transformer],
                "vae": ["diffusers", "AutoencoderKL"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "text_encoder_2": ["transformers", "T5EncoderModel"],
                "tokenizer_2": ["transformers", "T5TokenizerFast"],
            },
            "transformer/config.json": transformer_config(shape),
            "vae/config.json": autoencoder_config((128, 256, 512, 512), 2, 16),
            "text_encoder/config.json": clip_config(49408, 768, 3072, 12, 77),
            "text_encoder_2/config.json": t5_config(32128, 4096, 10240, 24, 64, 64),
            "scheduler/scheduler_config.json": scheduler_config(shape),
        }

    def encoders(self, components: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """Themselves: to import the whole pipeline takes longer than to encode a prompt."""
        return dict(components)

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """T5's tokens, filled up, and CLIP's pooled output, as FluxPipeline makes them."""
        t5, clip = encoders["text_encoder_2"], encoders["text_encoder"]
        tokens = t5(_ids(encoders["tokenizer_2"], text, max_tokens, t5.device))[0]
        pooled = clip(_ids(encoders["tokenizer"], text, FOR_CLIP, clip.device)).pooler_output
        return {"tokens": tokens, "pooled": pooled}

    def velocity(
        self, network: Any, latents: Tensor, t: Tensor, prompt: Mapping[str, Tensor], guidance: float
    ) -> Tensor:
        """All of the text is at the origin."""
        b, _, h, w = latents.shape
        device = latents.device
        predicted = network(
            hidden_states=pack(latents),
            timestep=t,
            guidance=torch.full((b,), guidance, device=device) if network.config.guidance_embeds else None,
            encoder_hidden_states=prompt["tokens"],
            pooled_projections=prompt["pooled"],
            txt_ids=torch.zeros(prompt["tokens"].shape[1], 3, device=device),
            img_ids=positions(h // 2, w // 2).to(device),
            return_dict=False,
        )[0]
        return unpack(predicted.float(), h, w)

    def schedule(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> Tensor:
        """Shifted the more the larger the image; without the scheduler's class, which loads scipy."""
        return schedule(steps, tokens, config)

    def overhead(self, tokenizer: Any) -> int:
        """The end of the text."""
        return 1

    def longest(self, config: Mapping[str, Any], tokenizer_settings: Mapping[str, Any]) -> int:
        """What the tokenizer says, but at most what FLUX was trained with."""
        return min(self.architecture(config).max_tokens, tokenizer_settings.get("model_max_length", 512))

    def architecture(self, config: Mapping[str, Any]) -> FluxShape:
        """By its sizes: FLUX.1's layers have other names in other programs."""
        return FluxShape(
            width=config["num_attention_heads"] * config["attention_head_dim"],
            double_blocks=config["num_layers"],
            single_blocks=config["num_single_layers"],
            in_channels=config["in_channels"],
            joint_dim=config["joint_attention_dim"],
            pooled_dim=config["pooled_projection_dim"],
            guidance=config["guidance_embeds"],
        )


FLUX = Flux()


def schedule(steps: int, tokens: int, config: Mapping[str, Any]) -> Tensor:
    """Times [steps + 1] from 1 to 0, shifted towards noise the more the larger the image (BFL's `get_schedule`)."""
    times = torch.linspace(1, 1 / steps, steps)
    times = shifted(
        times, math.exp(linear_shift(config, tokens)) if config["use_dynamic_shifting"] else config["shift"]
    )
    return torch.cat([times, torch.zeros(1)])


def _ids(tokenizer: Any, prompt: str, length: int, device: torch.device) -> Tensor:
    return tokenizer(
        prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids.to(device)

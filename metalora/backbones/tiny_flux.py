"""A FLUX of 2 + 2 blocks with random weights: the real classes and every kind of layer, in seconds and without files.

It has learned nothing. Its weights are drawn so that every input matters: outputs, gates and attention are of order 1.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .families.flux import FLUX
from .flux_configs import autoencoder_config, clip_config, scheduler_config, t5_config, transformer_config
from .keys import HEAD, FluxShape
from .tiny_tokenizers import clip_tokenizer, t5_tokenizer

SHAPE = FluxShape(
    width=HEAD, double_blocks=2, single_blocks=2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True
)
LATENTS = 4.0  # what the encoder's last layer is multiplied by, so that scaled latents are of order 1


class TinyFlux:
    """`pipeline.Parts` made from a seed: about 10 MB, the same in every run and on every machine."""

    family = FLUX
    name = "tiny"
    settings: Mapping[str, Any] = {}
    architecture = SHAPE
    max_tokens = 64

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.scheduler_config = scheduler_config(SHAPE)

    def tokenizer(self) -> Any:
        """Of letters."""
        return t5_tokenizer(self.max_tokens)

    def text_encoders(self, device: torch.device | str, dtype: torch.dtype) -> dict[str, Any]:
        """CLIP of 2 layers on bytes, T5 of 2 layers on letters."""
        from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

        clip_words, t5_words = clip_tokenizer(), self.tokenizer()
        clip = CLIPTextConfig(**clip_config(len(clip_words), SHAPE.pooled_dim, 64, 2, 77))
        t5 = T5Config(**t5_config(len(t5_words), SHAPE.joint_dim, 128, 2, 4, 16))
        return {
            "tokenizer": clip_words,
            "text_encoder": _moved(self._drawn(1, CLIPTextModel, clip), device, dtype),
            "tokenizer_2": t5_words,
            "text_encoder_2": _moved(self._drawn(2, T5EncoderModel, t5), device, dtype),
        }

    def autoencoder(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """8 x 8 pixels to 16 numbers, like FLUX's own."""
        from diffusers import AutoencoderKL

        vae = self._drawn(3, AutoencoderKL, **autoencoder_config((32, 32, 32, 64), 1, SHAPE.in_channels // 4))
        with torch.no_grad():
            vae.encoder.conv_out.weight *= LATENTS
        return _moved(vae, device, dtype)

    def transformer(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """One attention head wide, two double and two single blocks."""
        from diffusers import FluxTransformer2DModel

        return _moved(self._drawn(4, FluxTransformer2DModel, **transformer_config(SHAPE)), device, dtype)

    def fingerprint(self, part: str) -> str:
        """sha256 of the part's weights: they take less time to draw than to explain another rule."""
        sha = hashlib.sha256()
        for model in self._models(part):
            for name, weight in sorted(model.state_dict().items()):
                sha.update(name.encode() + weight.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def weights_bytes(self) -> dict[str, int]:
        """In float32, as they are drawn."""
        return {
            part: sum(4 * weight.numel() for model in self._models(part) for weight in model.parameters())
            for part in ("text_encoders", "autoencoder", "transformer")
        }

    def missing(self) -> list[str]:
        """Nothing ever is."""
        return []

    def _models(self, part: str) -> list[nn.Module]:
        if part == "text_encoders":
            made = self.text_encoders("cpu", torch.float32)
            return [made["text_encoder"], made["text_encoder_2"]]
        build = {"autoencoder": self.autoencoder, "transformer": self.transformer}[part]
        return [build("cpu", torch.float32)]

    def _drawn(self, stream: int, build: Any, *args: Any, **settings: Any) -> Any:
        """A model with weights from our own generator: what libraries draw differs between their versions."""
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the caller's
            model = build(*args, **settings).eval()
        generator = torch.Generator().manual_seed(self.seed * 8 + stream)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                _draw(module.weight, module.weight[0].numel() ** -0.5, generator)
                if module.bias is not None:
                    _draw(module.bias, 0.1, generator)
            elif isinstance(module, nn.Embedding):
                _draw(module.weight, 1.0, generator)
        return model


@torch.no_grad()
def _draw(weight: Tensor, deviation: float, generator: torch.Generator) -> None:
    weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)


def _moved(model: nn.Module, device: torch.device | str, dtype: torch.dtype) -> Any:
    return nn.Module.to(model, device, dtype)  # diffusers' own `to` warns about layers that no FLUX has

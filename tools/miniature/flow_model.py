"""The miniature's FLUX: diffusers' transformer and two text encoders, trained together, with what drives them."""

import itertools
import pathlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn

from metalora.backbones.architecture import HEAD
from metalora.backbones.families.flux import FluxShape, schedule, scheduler_config, transformer_config
from metalora.backbones.family import pack, positions, unpack
from metalora.method.flow import Times, noised, velocity

from .autoencoder import CONFIG as AUTOENCODER
from .captions import Attributes, describe
from .text import WIDTH, TextEncoders

# How often a caption leaves an attribute out, so that prompts may say little; and how often it is empty, for guidance.
LEFT_OUT = {
    "kind": 0.03, "hair": 0.35, "beard": 0.35, "expression": 0.10, "turn": 0.12,
    "clothes": 0.08, "background": 0.08, "light": 0.25,
}  # fmt: skip
EMPTY = 0.10
GUIDED = 0.85  # times above it are not guided: there guidance raises contrast and moves what is where, no more


@dataclass(frozen=True)
class Size:
    """What a checkpoint must agree on."""

    double_blocks: int = 2
    single_blocks: int = 4
    width: int = 256

    def shape(self) -> FluxShape:
        return FluxShape(
            width=self.width,
            double_blocks=self.double_blocks,
            single_blocks=self.single_blocks,
            in_channels=4 * AUTOENCODER["latent_channels"],
            joint_dim=WIDTH,
            pooled_dim=WIDTH,
            guidance=True,
        )


class MiniatureFlux(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.size = size
        self.text = TextEncoders()
        self.transformer = FluxTransformer2DModel(**transformer_config(size.shape()))
        _start_as_identity(self.transformer)

    @classmethod
    def of(cls, pipeline: pathlib.Path) -> "MiniatureFlux":
        """The model whose pipeline `train_flow` or `export` wrote to this folder, in full precision."""
        parts = FluxPipeline.from_pretrained(pipeline, vae=None, torch_dtype=torch.float32)
        config = parts.transformer.config
        model = cls(Size(config.num_layers, config.num_single_layers, config.num_attention_heads * HEAD))
        model.transformer.load_state_dict(parts.transformer.state_dict())
        model.text.clip.load_state_dict(parts.text_encoder.state_dict())
        model.text.t5.load_state_dict(parts.text_encoder_2.state_dict())
        return model

    def matrices(self) -> list[nn.Parameter]:
        """The weights of the blocks' linear layers: those that Muon is for."""
        blocks = [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]
        return [weight for block in blocks for weight in block.parameters() if weight.ndim == 2]

    def forward(self, latents: Tensor, t: Tensor, captions: list[str]) -> Tensor:
        """The velocity [n, 16, h, w] of noised latents at times [n]."""
        tokens, pooled = self.text(*self.text.ids(captions))
        return self.velocity(latents, t, tokens, pooled)

    def velocity(self, latents: Tensor, t: Tensor, tokens: Tensor, pooled: Tensor, guidance: Tensor | None = None):
        """Guidance [n] is FLUX's input for it; 1, the default, is the plain velocity of the caption."""
        height, width = latents.shape[2:]
        predicted = self.transformer(
            hidden_states=pack(latents),
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            timestep=t,
            guidance=torch.ones_like(t) if guidance is None else guidance,
            img_ids=positions(height // 2, width // 2).to(latents),
            txt_ids=torch.zeros(tokens.shape[1], 3).to(latents),
            return_dict=False,
        )[0]
        return unpack(predicted.float(), height, width)

    def loss(self, drawn: "Drawn") -> Tensor:
        """The flow's mean squared error, cell by cell as they count."""
        clean, weights, noise, t, t5_ids, clip_ids = drawn.to(next(self.parameters()).device)
        predicted = self.velocity(noised(clean, noise, t), t, *self.text(t5_ids, clip_ids))
        return (weights * (predicted - velocity(clean, noise)).square()).mean()

    def guided(
        self,
        latents: Tensor,
        t: Tensor,
        tokens: Tensor,
        pooled: Tensor,
        guidance: Tensor,
        weak: "MiniatureFlux | None" = None,
    ) -> Tensor:
        """Classifier-free guidance: away from what this model, or a weaker one, makes of no caption.

        A weaker one has the same faults, only more of them, so that one is led away from crooked eyes too (Karras et
        al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself", section 4). Only in the quieter times
        (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval").
        """
        strength = torch.where(t <= GUIDED, guidance, 1.0).view(-1, 1, 1, 1)
        other = weak or self
        empty = other.velocity(latents, t, *other.text(*other.text.ids([""] * len(latents))))
        return empty + strength * (self.velocity(latents, t, tokens, pooled) - empty)

    @torch.no_grad()
    def sample(
        self, captions: list[str], size: int, guidance: float = 2.0, steps: int = 24, seed: int = 0, distilled=False
    ) -> Tensor:
        """Latents [n, 16, size, size] by Euler steps; a distilled model needs one pass a step, any other two."""
        device = next(self.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(len(captions), AUTOENCODER["latent_channels"], size, size, generator=generator).to(device)
        tokens, pooled = self.text(*self.text.ids(captions))
        strength = torch.full((len(captions),), guidance, device=device)
        velocity = self.velocity if distilled else self.guided
        times = schedule(steps, size**2 // 4, scheduler_config(self.size.shape())).to(device)
        for now, after in itertools.pairwise(times):
            t = now.expand(len(captions))
            latents = latents + (after - now) * velocity(latents, t, tokens, pooled, strength)
        return latents


class Drawn(NamedTuple):
    """A batch of n: latents [n, 16, h, w], their cells' weights, noise for them, times [n], their captions' ids."""

    clean: Tensor
    weights: Tensor
    noise: Tensor
    t: Tensor
    t5_ids: Tensor
    clip_ids: Tensor

    def to(self, device: torch.device) -> "Drawn":
        return Drawn(*(tensor.to(device, non_blocking=True) for tensor in self))


def noise_for(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(noise, times) drawn on the CPU, so that every device draws the same."""
    return torch.randn(clean.shape, generator=generator), Times().draw(len(clean), generator)


def spoken(attributes: Attributes, generator: torch.Generator) -> str:
    """A caption that leaves some attributes out, or everything."""
    draws = torch.rand(len(LEFT_OUT) + 1, generator=generator).tolist()
    if draws.pop() < EMPTY:
        return ""
    silent = {name for (name, chance), draw in zip(LEFT_OUT.items(), draws, strict=True) if draw < chance}
    return describe({name: value for name, value in attributes.items() if name not in silent})


@torch.no_grad()
def _start_as_identity(transformer: FluxTransformer2DModel) -> None:
    """Blocks begin closed and the output begins as zero: the first steps are not spent undoing random blocks."""
    closed = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        closed += [block.norm1.linear, block.norm1_context.linear]
    closed += [block.norm.linear for block in transformer.single_transformer_blocks]
    for layer in closed:
        layer.weight.zero_()
        layer.bias.zero_()

"""The miniature's FLUX: diffusers' transformer and two text encoders, trained together, with what drives them."""

import pathlib
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from tqdm import tqdm

from metalora.backbones.families.flux import FLUX, FluxShape, scheduler_config, transformer_config
from metalora.backbones.protocol import Prompt
from metalora.method.flow import noised, velocity

from .autoencoder import CONFIG as AUTOENCODER
from .captions import Attributes, describe
from .text import T5_TOKENS, WIDTH, TextEncoders

# How often a caption leaves an attribute out, so that prompts may say little; and how often it is empty, for guidance.
LEFT_OUT = {
    "kind": 0.03, "hair": 0.35, "beard": 0.35, "expression": 0.10, "turn": 0.12,
    "clothes": 0.08, "background": 0.08, "light": 0.25,
}  # fmt: skip
EMPTY = 0.10
BATCH = 16  # of pictures that are drawn at once
GUIDED = 0.85  # times above it are not guided: there guidance raises contrast and moves what is where, no more


SHAPE = FluxShape(
    width=256,
    double_blocks=2,
    single_blocks=4,
    in_channels=4 * AUTOENCODER["latent_channels"],
    joint_dim=WIDTH,
    pooled_dim=WIDTH,
    guidance=True,
)


class MiniatureFlux(nn.Module):
    def __init__(self, shape: FluxShape = SHAPE):
        super().__init__()
        self.shape = shape
        self.text = TextEncoders()
        self.transformer = FluxTransformer2DModel(**transformer_config(shape))
        _start_as_identity(self.transformer)

    @classmethod
    def of(cls, pipeline: pathlib.Path) -> "MiniatureFlux":
        """The model whose pipeline `train_flow` or `export` wrote to this folder, in full precision."""
        parts = FluxPipeline.from_pretrained(pipeline, vae=None, torch_dtype=torch.float32)
        model = cls(FLUX.architecture(parts.transformer.config))
        model.transformer.load_state_dict(parts.transformer.state_dict())
        model.text.clip.load_state_dict(parts.text_encoder.state_dict())
        model.text.t5.load_state_dict(parts.text_encoder_2.state_dict())
        return model

    def matrices(self) -> list[nn.Parameter]:
        """The weights of the blocks' linear layers: those that Muon is for."""
        blocks = [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]
        return [weight for block in blocks for weight in block.parameters() if weight.ndim == 2]

    def velocity(
        self, latents: Tensor, t: Tensor, tokens: Tensor, pooled: Tensor, guidance: Tensor | float = 1.0
    ) -> Tensor:
        """The velocity [n, 16, h, w] of noised latents at times [n].

        Guidance, one or [n], is FLUX's input for it; 1 is the plain velocity of the caption.
        """
        return FLUX.velocity(self.transformer, latents, t, Prompt(tokens=tokens, pooled=pooled), guidance)

    def pipeline(self, autoencoder: AutoencoderKL) -> FluxPipeline:
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(**scheduler_config(self.shape)),
            vae=autoencoder,
            text_encoder=self.text.clip,
            tokenizer=self.text.clip_tokenizer,
            text_encoder_2=self.text.t5,
            tokenizer_2=self.text.t5_tokenizer,
            transformer=self.transformer,
        )

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


def draw(
    pipeline: FluxPipeline, prompts: list[str], size: int, steps: int, guidance: float, two_passes: bool
) -> np.ndarray:
    """[n, size, size, 3] bytes; picture i has seed i, whatever the batches are.

    Guidance that is not distilled takes two passes a step, one of them with an empty prompt.
    """
    pipeline.set_progress_bar_config(disable=True)
    in_one, in_two = (1.0, guidance) if two_passes else (guidance, 1.0)
    pictures = []
    for start in tqdm(range(0, len(prompts), BATCH), desc="batches"):
        some = prompts[start : start + BATCH]
        made = pipeline(
            some,
            height=size,
            width=size,
            num_inference_steps=steps,
            max_sequence_length=T5_TOKENS,
            generator=[torch.Generator().manual_seed(start + index) for index in range(len(some))],
            output_type="np",
            guidance_scale=in_one,
            true_cfg_scale=in_two,
            negative_prompt=[""] * len(some) if two_passes else None,
        )
        pictures.append((made.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


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

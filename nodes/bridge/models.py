"""The parts of ComfyUI's MODEL, CLIP and VAE, read and checked; nothing here changes them."""

from typing import Any

import comfy.latent_formats
import comfy.ldm.flux.model
import comfy.text_encoders.flux
import torch
from torch import Tensor, nn

from ...metalora.backbones.flux_configs import max_tokens
from ...metalora.backbones.keys import FluxShape
from ...metalora.config import UserError


def network_of(model: Any) -> nn.Module:
    """The FLUX in a MODEL; a UserError for anything else."""
    network = model.model.diffusion_model
    if type(network) is not comfy.ldm.flux.model.Flux:
        raise UserError(f"This MODEL is a {type(model.model).__name__}. Meta-LoRA needs FLUX.1-dev or FLUX.1-schnell.")
    if network.in_channels != network.out_channels:
        raise UserError(
            f"This FLUX reads {network.in_channels} numbers a token and returns {network.out_channels}: a Fill, Depth "
            "or Canny variant, which needs another image as input. Use FLUX.1-dev or FLUX.1-schnell."
        )
    if not network.params.vec_in_dim:
        raise UserError(
            f"This FLUX ({type(model.model).__name__}) takes no pooled prompt: a FLUX.2 or another relative. "
            "Use FLUX.1-dev or FLUX.1-schnell."
        )
    return network


def flux_shape(model: Any) -> FluxShape:
    """The architecture of a MODEL."""
    network: Any = network_of(model)
    params = network.params
    return FluxShape(
        width=params.hidden_size,
        double_blocks=params.depth,
        single_blocks=params.depth_single_blocks,
        in_channels=network.in_channels,
        joint_dim=params.context_in_dim,
        pooled_dim=params.vec_in_dim,
        guidance=params.guidance_embed,
        mlp_ratio=int(params.mlp_ratio),
    )


def compute_dtype(model: Any) -> torch.dtype:
    """What the network computes in, which fp8 weights are cast to."""
    return model.model.manual_cast_dtype or model.model.get_dtype()


def weights_of(model: Any, part: str) -> dict[str, Tensor]:
    """The tensors that make up a part: "transformer" of a MODEL, "text_encoders" of a CLIP, "autoencoder" of a VAE."""
    module = {
        "transformer": lambda: network_of(model),
        "text_encoders": lambda: model.cond_stage_model,
        "autoencoder": lambda: model.first_stage_model,
    }[part]()
    return module.state_dict()


def patches_of(patcher: Any) -> str:
    """Names the LoRAs that are on a MODEL or CLIP already: new for every change of them."""
    return str(patcher.patches_uuid) if patcher.patches else ""


def check_clip(clip: Any) -> None:
    """Refuse what is not FLUX's pair of text encoders."""
    if not isinstance(clip.tokenizer, comfy.text_encoders.flux.FluxTokenizer):
        raise UserError(
            f"This CLIP is a {type(clip.cond_stage_model).__name__}. "
            "Load clip_l and t5xxl with DualCLIPLoader, type flux."
        )


def prompt_tokens(clip: Any, shape: FluxShape) -> int:
    """How many of T5's tokens a prompt is padded to: as FLUX was trained, or as a smaller one's loader says."""
    known = shape.name in ("flux.1-dev", "flux.1-schnell")
    return max_tokens(shape) if known else clip.tokenizer.t5xxl.min_length


def encode_prompt(clip: Any, text: str, tokens: int) -> tuple[Tensor, Tensor]:
    """(T5's tokens [1, n, d], CLIP's pooled output [1, e]); brackets in a caption are letters, not weights."""
    tokenized = clip.tokenize(text, disable_weights=True, tokenizer_options={"t5xxl_min_length": tokens})
    embedded, pooled = clip.encode_from_tokens(tokenized, return_pooled=True)
    return embedded, pooled


def latents_in(latents: Tensor) -> Tensor:
    """What a FLUX's autoencoder makes -> what its transformer takes."""
    return comfy.latent_formats.Flux().process_in(latents)


def latents_out(latents: Tensor) -> Tensor:
    """The inverse."""
    return comfy.latent_formats.Flux().process_out(latents)

"""A small FLUX, whose widths stock loaders may not know, as ComfyUI's own objects."""

from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.flux
import torch
from comfy.sd1_clip import SDTokenizer
from torch import nn
from transformers import T5TokenizerFast  # type: ignore[attr-defined]  # the name that 4 and 5 share

from ..small_flux import SmallFlux

CLIP_EMBEDDINGS = "text_model.embeddings.token_embedding"


class SmallTokenizer(comfy.text_encoders.flux.FluxTokenizer):
    """FLUX's pair with other vocabularies."""

    def __init__(self, small: SmallFlux):
        self.clip_l = SDTokenizer(str(small.clip_words), max_length=small.clip_config["max_position_embeddings"])
        self.t5xxl = SDTokenizer(
            str(small.t5_words),
            pad_with_end=False,
            embedding_size=small.t5_config["d_model"],
            embedding_key="t5xxl",
            tokenizer_class=T5TokenizerFast,
            has_start_token=False,
            pad_to_max_length=False,
            max_length=99999999,
            min_length=small.max_tokens,
        )


def small_parts(small: SmallFlux) -> tuple[Any, Any, Any]:
    """(MODEL, CLIP, VAE)."""
    return small_model(small), small_clip(small), small_vae(small)


def small_model(small: SmallFlux, stored: torch.dtype = torch.float32) -> Any:
    """MODEL, computing in float32 whatever its weights are stored in."""
    # What detection finds holds for this version's classes; before 0.4 it does not look at widths.
    copies = {name: weight.clone() for name, weight in small.transformer.items()}  # it writes into what it is given
    weights = comfy.model_detection.convert_diffusers_mmdit(copies)
    detected = comfy.model_detection.detect_unet_config(weights, "")
    config = comfy.supported_models.Flux({**detected, **small.unet_config()})
    config.set_inference_dtype(stored, None if stored == torch.float32 else torch.float32)
    model = config.get_model({}, "", device=torch.device("cpu"))
    model.diffusion_model.load_state_dict(config.process_unet_state_dict(weights))
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def small_clip(small: SmallFlux) -> Any:
    """CLIP."""

    class Target:
        params: dict[str, Any] = {}  # noqa: RUF012  # ComfyUI copies it
        clip = comfy.text_encoders.flux.FluxClipModel

        @staticmethod
        def tokenizer(**_options: Any) -> SmallTokenizer:
            return SmallTokenizer(small)

    options = {"clip_l_model_config": small.clip_config, "t5xxl_model_config": small.t5_config, "dtype": torch.float32}
    clip = comfy.sd.CLIP(Target, model_options=options)
    encoder = clip.cond_stage_model.clip_l
    encoder.special_tokens = small.clip_special_tokens
    vocabulary, width = small.clip[f"{CLIP_EMBEDDINGS}.weight"].shape  # ComfyUI's class knows only CLIP's own
    encoder.transformer.set_input_embeddings(encoder.operations.Embedding(vocabulary, width))
    encoder.transformer.load_state_dict(small.clip)
    clip.cond_stage_model.t5xxl.transformer.load_state_dict(small.t5)
    return clip


def small_vae(small: SmallFlux) -> Any:
    """VAE."""
    vae = comfy.sd.VAE(sd=small.autoencoder, config={"params": small.autoencoder_params}, dtype=torch.float32)
    vae.latent_channels = small.latent_channels
    for module in vae.first_stage_model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = small.norm_groups
    return vae

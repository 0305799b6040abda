"""A small FLUX, what ships or the tiny test network, as ComfyUI's own objects: stock loaders know no such widths."""

import tempfile
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.flux
import torch
from comfy.sd1_clip import SDTokenizer
from torch import Tensor, nn
from transformers import T5TokenizerFast  # type: ignore[attr-defined]  # the name that 4 and 5 share

from ...metalora.backbones.architecture import HEAD
from ...metalora.backbones.families.flux import AXES, FluxShape
from ...metalora.backbones.pipeline import Parts, lean_imports

CLIP_PREFIX, CLIP_EMBEDDINGS = "text_model.", "text_model.embeddings.token_embedding"
T5_NAMES = ("d_ff", "d_kv", "d_model", "num_heads", "num_layers", "vocab_size")


@lean_imports()  # a package that diffusers finds, such as bitsandbytes, gives no advice in ComfyUI's log
def small_parts(parts: Parts) -> tuple[Any, Any, Any]:
    """(MODEL, CLIP, VAE), computing in float32."""
    return small_model(parts), small_clip(parts), small_vae(parts.autoencoder("cpu", torch.float32))


def small_model(parts: Parts, stored: torch.dtype = torch.float32) -> Any:
    """MODEL, computing in float32 whatever its weights are stored in."""
    shape = parts.architecture
    assert isinstance(shape, FluxShape), shape.name
    sizes = {
        "image_model": "flux",
        "in_channels": shape.in_channels // 4,
        "out_channels": shape.in_channels // 4,
        "patch_size": 2,
        "vec_in_dim": shape.pooled_dim,
        "context_in_dim": shape.joint_dim,
        "hidden_size": shape.width,
        "mlp_ratio": float(shape.mlp_ratio),
        "num_heads": shape.width // HEAD,
        "depth": shape.double_blocks,
        "depth_single_blocks": shape.single_blocks,
        "axes_dim": list(AXES),
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": shape.guidance,
    }
    # What detection finds holds for this version's classes; before 0.4 it does not look at widths.
    weights = comfy.model_detection.convert_diffusers_mmdit(weights_of(parts.transformer("cpu", torch.float32)))
    detected = comfy.model_detection.detect_unet_config(weights, "")
    config = comfy.supported_models.Flux({**detected, **sizes})
    config.set_inference_dtype(stored, None if stored == torch.float32 else torch.float32)
    model = config.get_model({}, "", device=torch.device("cpu"))
    model.diffusion_model.load_state_dict(config.process_unet_state_dict(weights))
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def small_clip(parts: Parts) -> Any:
    """CLIP."""
    texts = parts.text_encoders("cpu", torch.float32)
    words, clip, t5 = texts["tokenizer"], texts["text_encoder"], texts["text_encoder_2"]
    configs = {
        "clip_l_model_config": clip.config.to_dict(),
        "t5xxl_model_config": {name: getattr(t5.config, name) for name in T5_NAMES},
    }

    class Target:
        params: dict[str, Any] = {}  # noqa: RUF012  # ComfyUI copies it
        clip = comfy.text_encoders.flux.FluxClipModel

        @staticmethod
        def tokenizer(**_options: Any) -> SmallTokenizer:
            return SmallTokenizer(texts, parts.max_tokens)

    made = comfy.sd.CLIP(Target, model_options={**configs, "dtype": torch.float32})
    encoder = made.cond_stage_model.clip_l
    encoder.special_tokens = {"start": words.bos_token_id, "end": words.eos_token_id, "pad": words.pad_token_id}
    # Under the names that files have, and transformers before 5.
    weights = {CLIP_PREFIX + name.removeprefix(CLIP_PREFIX): weight for name, weight in weights_of(clip).items()}
    vocabulary, width = weights[f"{CLIP_EMBEDDINGS}.weight"].shape  # ComfyUI's class knows only CLIP's own
    encoder.transformer.set_input_embeddings(encoder.operations.Embedding(vocabulary, width))
    # The projection is not used by FLUX; ComfyUI's class has it all the same.
    encoder.transformer.load_state_dict({**weights, "text_projection.weight": torch.eye(width)})
    made.cond_stage_model.t5xxl.transformer.load_state_dict(weights_of(t5))
    return made


class SmallTokenizer(comfy.text_encoders.flux.FluxTokenizer):
    """FLUX's pair with other vocabularies."""

    def __init__(self, texts: dict[str, Any], max_tokens: int):
        with tempfile.TemporaryDirectory() as folder:  # read, and not needed afterwards
            for name in ("tokenizer", "tokenizer_2"):
                texts[name].save_pretrained(Path(folder, name))
            length = texts["text_encoder"].config.max_position_embeddings
            self.clip_l = SDTokenizer(str(Path(folder, "tokenizer")), max_length=length)
            self.t5xxl = SDTokenizer(
                str(Path(folder, "tokenizer_2")),
                pad_with_end=False,
                embedding_size=texts["text_encoder_2"].config.d_model,
                embedding_key="t5xxl",
                tokenizer_class=T5TokenizerFast,
                has_start_token=False,
                pad_to_max_length=False,
                max_length=99999999,
                min_length=max_tokens,
            )


def small_vae(autoencoder: Any) -> Any:
    """VAE. ComfyUI's configurable autoencoder has two more convolutions of size 1, which here do nothing."""
    settings, latents = autoencoder.config, autoencoder.config.latent_channels
    width = settings.block_out_channels[0]
    layers = {
        "double_z": True,
        "z_channels": latents,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": width,
        "ch_mult": [channels // width for channels in settings.block_out_channels],
        "num_res_blocks": settings.layers_per_block,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    weights = weights_of(autoencoder)
    for name, channels in (("quant_conv", 2 * latents), ("post_quant_conv", latents)):
        weights |= {f"{name}.weight": torch.eye(channels)[:, :, None, None], f"{name}.bias": torch.zeros(channels)}
    params = {"embed_dim": latents, "ddconfig": layers}
    vae = comfy.sd.VAE(sd=weights, config={"params": params}, dtype=torch.float32)
    vae.latent_channels = latents
    for module in vae.first_stage_model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = settings.norm_num_groups
    return vae


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies, each under one name."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}

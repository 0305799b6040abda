"""A small FLUX in diffusers' names, which ComfyUI turns into its own: what ships, or the tiny test network."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..metalora.backbones.architecture import HEAD, FluxShape
from ..metalora.backbones.flux_configs import AXES
from ..metalora.backbones.pipeline import Parts, lean_imports

CLIP_PREFIX = "text_model."
T5_NAMES = ("d_ff", "d_kv", "d_model", "num_heads", "num_layers", "vocab_size")
CLIP_NAMES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "eos_token_id",
)


@dataclass(frozen=True)
class SmallFlux:
    """Weights by name and what they are to be loaded into; tokenizers as folders, which may be gone later."""

    shape: FluxShape
    max_tokens: int
    transformer: dict[str, Tensor]
    clip: dict[str, Tensor]
    clip_config: dict[str, Any]
    clip_special_tokens: dict[str, int]
    clip_words: Path
    t5: dict[str, Tensor]
    t5_config: dict[str, Any]
    t5_words: Path
    autoencoder: dict[str, Tensor]
    autoencoder_params: dict[str, Any]
    latent_channels: int
    norm_groups: int

    def unet_config(self) -> dict[str, Any]:
        """For ComfyUI's `supported_models.Flux`."""
        shape = self.shape
        return {
            "image_model": "flux",
            "in_channels": self.latent_channels,
            "out_channels": self.latent_channels,
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


@lean_imports()  # a package that diffusers finds, such as bitsandbytes, gives no advice in ComfyUI's log
def read_small_flux(parts: Parts, folder: Path) -> SmallFlux:
    """All parts of a FLUX in float32; the tokenizers are left in `folder`."""
    assert isinstance(parts.architecture, FluxShape), parts.architecture.name
    texts = parts.text_encoders("cpu", torch.float32)
    for name in ("tokenizer", "tokenizer_2"):
        texts[name].save_pretrained(folder / name)
    clip_words, clip, t5 = texts["tokenizer"], texts["text_encoder"], texts["text_encoder_2"]
    autoencoder = parts.autoencoder("cpu", torch.float32)
    settings = autoencoder.config
    special = {"start": clip_words.bos_token_id, "end": clip_words.eos_token_id, "pad": clip_words.pad_token_id}
    width, latents = settings.block_out_channels[0], settings.latent_channels
    return SmallFlux(
        shape=parts.architecture,
        max_tokens=parts.max_tokens,
        transformer=weights_of(parts.transformer("cpu", torch.float32)),
        # The projection is not used by FLUX; ComfyUI's class has it all the same.
        clip={**clip_weights(clip), "text_projection.weight": torch.eye(clip.config.hidden_size)},
        clip_config={name: getattr(clip.config, name) for name in CLIP_NAMES},
        clip_special_tokens=special,
        clip_words=folder / "tokenizer",
        t5=weights_of(t5),
        t5_config={name: getattr(t5.config, name) for name in T5_NAMES},
        t5_words=folder / "tokenizer_2",
        # ComfyUI's configurable autoencoder has two more convolutions of size 1, which here do nothing.
        autoencoder={
            **weights_of(autoencoder),
            **identity("quant_conv", 2 * latents),
            **identity("post_quant_conv", latents),
        },
        autoencoder_params={
            "embed_dim": latents,
            "ddconfig": {
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
            },
        },
        latent_channels=latents,
        norm_groups=settings.norm_num_groups,
    )


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Each under one name."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def clip_weights(clip: nn.Module) -> dict[str, Tensor]:
    """Under the names that files have, and transformers before 5."""
    return {CLIP_PREFIX + name.removeprefix(CLIP_PREFIX): weight for name, weight in weights_of(clip).items()}


def identity(name: str, channels: int) -> dict[str, Tensor]:
    """A convolution of size 1 that returns what it is given."""
    return {f"{name}.weight": torch.eye(channels)[:, :, None, None], f"{name}.bias": torch.zeros(channels)}


def load_small_flux(parts: Parts, build: Any) -> Any:
    """What `build` makes of all parts, while the tokenizers' folder is there."""
    with tempfile.TemporaryDirectory() as folder:
        return build(read_small_flux(parts, Path(folder)))

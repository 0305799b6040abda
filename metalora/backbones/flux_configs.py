"""What FLUX.1's weight files do not say about themselves: the settings its classes are built with."""

from typing import Any

from .architecture import HEAD, FluxShape

# Of FlowMatchEulerDiscreteScheduler; not read from it, since its file imports scipy.
SCHEDULER_DEFAULTS = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
AXES = (16, 56, 56)  # numbers of a head that turn with the index, the row and the column


def transformer_config(shape: FluxShape) -> dict[str, Any]:
    """For FluxTransformer2DModel."""
    return {
        "in_channels": shape.in_channels,
        "num_layers": shape.double_blocks,
        "num_single_layers": shape.single_blocks,
        "attention_head_dim": HEAD,
        "num_attention_heads": shape.width // HEAD,
        "joint_attention_dim": shape.joint_dim,
        "pooled_projection_dim": shape.pooled_dim,
        "guidance_embeds": shape.guidance,
        "axes_dims_rope": AXES,
    }


def autoencoder_config(channels: tuple[int, ...], layers: int, latent_channels: int) -> dict[str, Any]:
    """For AutoencoderKL. FLUX.1's own is (128, 256, 512, 512), 2, 16."""
    return {
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": latent_channels,
        "norm_num_groups": 32,
        "sample_size": 1024,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def scheduler_config(shape: FluxShape) -> dict[str, Any]:
    """For FlowMatchEulerDiscreteScheduler: dev shifts its times with the size of the image, schnell does not."""
    own = {"shift": 3.0 if shape.guidance else 1.0, "use_dynamic_shifting": shape.guidance}
    return {**SCHEDULER_DEFAULTS, **own}


def clip_config(vocabulary: int, width: int, hidden: int, layers: int, positions: int) -> dict[str, Any]:
    """For CLIPTextConfig. The end of a text is the vocabulary's last word, and so is the padding."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": hidden,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": positions,
        "hidden_act": "quick_gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def t5_config(vocabulary: int, width: int, hidden: int, layers: int, heads: int, head: int) -> dict[str, Any]:
    """For T5Config, of the 1.1 kind: a gated GELU, and embeddings that serve the encoder alone."""
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": head,
        "d_ff": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }

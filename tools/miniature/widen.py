"""The same autoencoder, wider and deeper: for programs that know only FLUX's own size.

New channels are zero and stay zero, new blocks add nothing, so every picture and every latent is the same.
"""

import math

import torch
from diffusers import AutoencoderKL
from torch import nn

FLUX_FACTOR, FLUX_LAYERS = 4, 2  # from `autoencoder.CONFIG` to FLUX.1's autoencoder


@torch.no_grad()
def widened(model: AutoencoderKL, factor: int = FLUX_FACTOR, layers: int = FLUX_LAYERS) -> AutoencoderKL:
    """A copy with `factor` times the channels and norm groups, and `layers` blocks per level."""
    assert layers >= model.config.layers_per_block, (layers, model.config.layers_per_block)
    settings = dict(model.config) | {
        "block_out_channels": tuple(width * factor for width in model.config.block_out_channels),
        "norm_num_groups": model.config.norm_num_groups * factor,
        "layers_per_block": layers,
    }
    wide = AutoencoderKL(**{name: value for name, value in settings.items() if not name.startswith("_")}).eval()
    small = dict(model.named_parameters())
    for name, weight in wide.named_parameters():
        norm_scale = isinstance(wide.get_submodule(name.rsplit(".", 1)[0]), nn.GroupNorm) and name.endswith("weight")
        weight.fill_(1.0 if norm_scale else 0.0)  # a norm of zeros is zero whatever its scale
        if name in small:
            source = small[name] * (math.sqrt(factor) if ".to_q." in name else 1.0)  # scores divide by sqrt(channels)
            weight[tuple(slice(size) for size in source.shape)] = source
    return wide

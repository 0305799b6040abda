"""FLUX's autoencoder as one file: ae.safetensors, in the names of the LDM family or in diffusers' own."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ..config import UserError
from .conversions import Source, fill, ldm_sources
from .flux_configs import autoencoder_config
from .keys import FluxShape
from .weight_files import Entry, Landmark, opened_weights, size_in

PREFIXES = ("", "vae.", "first_stage_model.")
LDM = Landmark("autoencoder", "encoder.down.0.block.0.norm1.weight", PREFIXES)
DIFFUSERS = Landmark("autoencoder", "encoder.down_blocks.0.resnets.0.norm1.weight", PREFIXES)


def read_autoencoder(path: Path, shape: FluxShape, dtype: torch.dtype, device: torch.device | str) -> Any:
    """AutoencoderKL from one file, if its latents are what a FLUX of this shape takes."""
    from diffusers import AutoencoderKL

    with opened_weights(path, LDM, DIFFUSERS) as (landmark, weights):
        levels, block = ("encoder.down", "block") if landmark is LDM else ("encoder.down_blocks", "resnets")
        count = len({name.split(".")[2] for name in weights.entries if name.startswith(f"{levels}.")})
        channels = tuple(_size(weights.entries, f"{levels}.{i}.{block}.0.conv1.weight", 0, path) for i in range(count))
        layers = sum(f"{levels}.0.{block}.{i}.norm1.weight" in weights.entries for i in range(len(weights.entries)))
        latents = _size(weights.entries, "decoder.conv_in.weight", 1, path)
        if latents != shape.in_channels // 4:
            raise UserError(
                f"{path} makes latents of {latents} channels, but {shape.name} takes {shape.in_channels // 4}: "
                "it is another model's autoencoder. FLUX.1's is ae.safetensors."
            )
        with torch.device("meta"):
            model: Any = AutoencoderKL(**autoencoder_config(channels, layers, latents))
        sources = ldm_sources(model, count) if landmark is LDM else {name: Source(name) for name in model.state_dict()}
        fill(model, weights, sources, path, dtype, device)
    return model.eval()


def write_ldm_autoencoder(model: nn.Module, path: Path) -> None:
    """An AutoencoderKL in LDM's names, where attention is made of convolutions of size 1."""
    weights = model.state_dict()
    levels = len({name.split(".")[2] for name in weights if name.startswith("encoder.down_blocks.")})
    tensors = {}
    for name, source in ldm_sources(model, levels).items():
        weight = weights[name].detach().cpu().contiguous()
        is_projection = ".attentions." in name and weight.ndim == 2
        tensors[source.name] = weight[:, :, None, None] if is_projection else weight
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def _size(entries: dict[str, Entry], name: str, dimension: int, path: Path) -> int:
    return size_in(entries, name, dimension, path, "FLUX autoencoder")

"""FLUX's transformer as one file: in Black Forest Labs' names, as ComfyUI has it, or in diffusers' own."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import UserError
from .conversions import OUTSIDE_BLOCKS, Source, bfl_sources, fill, swap_halves
from .flux_configs import transformer_config
from .keys import HEAD, FluxShape
from .weight_files import Entry, Landmark, find_part, opened_weights, size_in

BFL = Landmark(
    "FLUX transformer",
    "double_blocks.0.img_attn.norm.key_norm.scale",
    ("", "model.diffusion_model.", "diffusion_model."),
)
DIFFUSERS = Landmark("FLUX transformer", "transformer_blocks.0.attn.norm_added_k.weight", ("", "transformer."))


def read_flux_transformer(path: Path, dtype: torch.dtype, device: torch.device | str) -> Any:
    """FluxTransformer2DModel from one file, tensor by tensor; fp8 weights, scaled or not, become `dtype`."""
    from diffusers import FluxTransformer2DModel

    shape = flux_shape_of(path)
    with torch.device("meta"):
        model: Any = FluxTransformer2DModel(**transformer_config(shape))
    with opened_weights(path, BFL, DIFFUSERS) as (landmark, weights):
        sources = bfl_sources(shape) if landmark is BFL else {name: Source(name) for name in model.state_dict()}
        fill(model, weights, sources, path, dtype, device)
    return model.eval()


def write_bfl_transformer(model: nn.Module, path: Path) -> None:
    """A FluxTransformer2DModel as Black Forest Labs' file, bit for bit what `read_flux_transformer` gives back."""
    pieces: dict[str, list[Tensor]] = {}
    weights = {name: weight.detach().cpu() for name, weight in model.state_dict().items()}
    for name, source in bfl_sources(flux_shape(weights_as_entries(weights), DIFFUSERS, path)).items():
        weight = weights.pop(name)
        pieces.setdefault(source.name, []).append(swap_halves(weight) if source.halves_swapped else weight)
    assert not weights, weights.keys()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.cat(parts).contiguous() for name, parts in pieces.items()}, path)


def flux_shape_of(path: Path) -> FluxShape:
    """The architecture, from the header alone."""
    landmark, _, entries = find_part(path, (BFL, DIFFUSERS))
    return flux_shape(entries, landmark, path)


def flux_shape(entries: dict[str, Entry], landmark: Landmark, path: Path) -> FluxShape:
    """The architecture that tensors of these names and shapes make up."""

    def size(layer: str, dimension: int) -> int:
        return size_in(
            entries, f"{OUTSIDE_BLOCKS[layer] if landmark is BFL else layer}.weight", dimension, path, "FLUX.1"
        )

    blocks = (
        ("double_blocks", "single_blocks") if landmark is BFL else ("transformer_blocks", "single_transformer_blocks")
    )
    double, single = (len({name.split(".")[1] for name in entries if name.startswith(f"{b}.")}) for b in blocks)
    guidance = "guidance_in.in_layer.weight" if landmark is BFL else "time_text_embed.guidance_embedder.linear_1.weight"
    if size("x_embedder", 1) != size("proj_out", 0):
        raise UserError(
            f"{path} takes {size('x_embedder', 1)} numbers a token and returns {size('proj_out', 0)}: "
            "a Fill, Depth or Canny variant, which needs another image as input. Use FLUX.1-dev or FLUX.1-schnell."
        )
    if entries[landmark.tensor].shape != (HEAD,):
        raise UserError(f"{path} has attention heads of {entries[landmark.tensor].shape[0]}; FLUX.1's have {HEAD}.")
    return FluxShape(
        width=size("x_embedder", 0),
        double_blocks=double,
        single_blocks=single,
        in_channels=size("x_embedder", 1),
        joint_dim=size("context_embedder", 1),
        pooled_dim=size("time_text_embed.text_embedder.linear_1", 1),
        guidance=guidance in entries,
    )


def weights_as_entries(weights: dict[str, Tensor]) -> dict[str, Entry]:
    """What a file of these tensors would have in its header."""
    return {name: Entry(tuple(tensor.shape), tensor.nbytes) for name, tensor in weights.items()}

"""Which layers of a network take adapters, under the names by which ComfyUI's stock loader and diffusers know them.

The names come from ComfyUI's own table of LoRA keys. It knows some layers by several names, for LoRAs of other makers;
diffusers' own is chosen. Where a table has nothing for a base, or slices that do not add up, ComfyUI's names serve.
"""

from typing import Any

import comfy.ldm.flux.model
import comfy.lora
from torch import nn

from ...metalora.backbones.architecture import Architecture, ListedArchitecture, base_name
from ...metalora.backbones.families.flux import FluxShape
from ...metalora.config import UserError
from ...metalora.method.adapter import Site, is_linear

OWN, KOHYA = "diffusion_model.", "lora_unet_"
FAMILIES = {"Flux2": "flux.2", "ZImage": "z-image", "QwenImage": "qwen-image", "Krea2": "krea-2"}


def blocks_of(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, module) of the repeated blocks: what stands in a list and has linear layers inside."""
    found = []

    def walk(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            in_a_list = isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList | nn.Sequential)
            if in_a_list and not is_linear(child) and any(map(is_linear, child.modules())):
                found.append((path, child))
            elif path != "distilled_guidance_layer":  # Chroma's own embedder of times, which no LoRA table has
                walk(child, f"{path}.")

    walk(network, "")
    return found


def architecture_of(model: Any, network: Any) -> Architecture:
    """Of a MODEL, whose network this is."""
    if type(network) is comfy.ldm.flux.model.Flux and network.params.vec_in_dim:
        return flux_shape(network)
    family = type(model.model.model_config).__name__
    prefix, sites = named_sites(model, network)
    if not sites:
        raise UserError(
            f"This MODEL is a {family}: none of its linear layers is in a repeated block, so there is nothing that a "
            "LoRA of a person could be put on."
        )
    return ListedArchitecture(base_name(FAMILIES.get(family, family.lower()), sites), tuple(sites), prefix)


def flux_shape(network: Any) -> FluxShape:
    """A FLUX.1's sizes; a UserError for one that needs another picture as input."""
    if network.in_channels != network.out_channels:
        raise UserError(
            f"This FLUX reads {network.in_channels} numbers a token and returns {network.out_channels}: a Fill, Depth "
            "or Canny variant, which needs another image as input. Use FLUX.1-dev or FLUX.1-schnell."
        )
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


def named_sites(model: Any, network: nn.Module) -> tuple[str, list[Site]]:
    """(what stands before a name in a LoRA file, the sites in the order of the blocks)."""
    table = comfy.lora.model_lora_keys_unet(model.model, {})
    layers = {
        f"{path}.{name}": layer
        for path, block in blocks_of(network)
        for name, layer in block.named_modules()
        if is_linear(layer)
    }
    last = type(model.model).__name__ == "Flux2"  # whose table has FLUX.1's names first
    for prefix, known in (("transformer.", diffusers_names(table)), (KOHYA, unet_names(table))):
        found = [sites_of(module, layer, known.get(module, []), last) for module, layer in layers.items()]
        covered = [sites for sites in found if sites]
        if covered and all(partition(sites, layers[sites[0].module]) for sites in covered):
            return prefix, [site for sites in covered for site in sites]
    whole = [Site(module, module, layer.in_features, layer.out_features) for module, layer in layers.items()]
    return OWN, whole


Names = dict[str, list[tuple[str, tuple[int, int] | None]]]  # module -> (name, (first row, rows) of a slice)


def diffusers_names(table: dict[str, Any]) -> Names:
    """The transformers' names, by ComfyUI's modules. Entries that also rearrange a weight's rows are left out."""
    found: Names = {}
    for key, target in table.items():
        whole = target if isinstance(target, str) else target[0]
        as_it_is = isinstance(target, str) or len(target) == 2
        if key.startswith("transformer.") and whole.endswith(".weight") and as_it_is:
            piece = None if isinstance(target, str) else (target[1][1], target[1][2])
            module = whole.removeprefix(OWN).removesuffix(".weight")
            found.setdefault(module, []).append((key.removeprefix("transformer."), piece))
    return found


def unet_names(table: dict[str, Any]) -> Names:
    """The UNets' names. The table has them as diffusers once wrote them, with a processor; kohya's are its keys too."""
    found: Names = {}
    for key, target in table.items():
        if key.startswith("unet.") and isinstance(target, str):
            name = key.removeprefix("unet.").replace(".processor.", ".")
            name += ".0" if name.endswith(".to_out") else ""
            if KOHYA + name.replace(".", "_") in table:
                found.setdefault(target.removeprefix(OWN).removesuffix(".weight"), []).append((name, None))
    return found


def sites_of(module: str, layer: Any, names: list[tuple[str, tuple[int, int] | None]], last: bool) -> list[Site]:
    """A layer's site, or those of its slices; of several names the first, or the last."""
    whole = [name for name, piece in names if piece is None]
    slices = {piece: name for name, piece in reversed(names) if piece is not None}
    if slices and not (last and whole):
        return [Site(slices[at], module, layer.in_features, at[1], at[0]) for at in sorted(slices)]
    return [Site(whole[-1 if last else 0], module, layer.in_features, layer.out_features)] if whole else []


def partition(sites: list[Site], layer: Any) -> bool:
    """Whether sites are the whole layer, each row once."""
    ends = [(site.start or 0) + site.out_features for site in sites]
    starts = [site.start or 0 for site in sites]
    return starts == [0, *ends[:-1]] and ends[-1] == layer.out_features

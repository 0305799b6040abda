"""One LoRA in the key formats that programs read. In memory it is {site name: (down [rank, in], up [out, rank])}.

| key_format | keys | read by |
|---|---|---|
| diffusers | transformer.<diffusers module>.lora_A.weight, .lora_B.weight; of a UNet, as kohya | diffusers, ComfyUI |
| bfl | diffusion_model.<fused module>.lora_down.weight, .lora_up.weight, .alpha | ComfyUI |
| kohya | lora_unet_<fused module, underscores>.lora_down.weight, .lora_up.weight, .alpha | diffusers, ComfyUI, kohya |

FLUX.1 has all three, every other base the first. alpha is always written equal to the rank: nothing is rescaled. Where
a format fuses k layers, their LoRAs of rank r become one of rank k * r: the downs stacked, the ups on the diagonal of a
block matrix. A layer without a LoRA has a block of zeros in both, and a lower rank is filled up with zeros; reading
takes off what is zero in down and up alike.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate, product

import torch
from torch import Tensor

from ..config import UserError
from ..method.adapter import Site
from .architecture import Architecture

LoRA = dict[str, tuple[Tensor, Tensor]]

KEY_FORMATS = ("diffusers", "bfl", "kohya")
STRONGEST = 1e6  # of a delta's numbers; a layer's own weights are below 10

# Whatever stands before a layer's name in the files of other makers, in any order and number.
PREFIXES = re.compile(
    r"^(base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|unet\.|module\.|_orig_mod\.|"
    r"lora_unet_|lora_transformer_|lycoris_)+"
)


def format_lora(lora: LoRA, key_format: str, architecture: Architecture) -> dict[str, Tensor]:
    """The tensors of a LoRA file."""
    layers = layers_of(key_format, architecture)
    unknown = lora.keys() - {site.name for fused in layers.values() for site in fused}
    if unknown:
        raise UserError(
            f"The LoRA has {len(unknown)} layers that {architecture.name} has not, {min(unknown)} among them. "
            "It was made for another base."
        )
    tensors: dict[str, Tensor] = {}
    for stem, fused in layers.items():
        if any(site.name in lora for site in fused):
            down, up = lora[fused[0].name] if len(fused) == 1 else fuse(fused, lora)
            if has_no_alpha(key_format, architecture):
                tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            else:
                alpha = torch.tensor(float(len(down)))
                tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": alpha}
    return tensors


def check_lora(tensors: dict[str, Tensor], key_format: str, architecture: Architecture) -> None:
    """Raise a UserError unless every key is one of the base's in this format, every shape fits, and all is finite."""
    no_alpha = has_no_alpha(key_format, architecture)
    roles = ("lora_A.weight", "lora_B.weight") if no_alpha else ("lora_down.weight", "lora_up.weight", "alpha")
    layers = layers_of(key_format, architecture)
    keys_of = {stem: [f"{stem}.{role}" for role in roles] for stem in layers}
    known = {key for keys in keys_of.values() for key in keys}
    problems = [f"{key} is unknown" for key in tensors if key not in known]
    problems += [f"{key} is not finite" for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    for stem, keys in keys_of.items():
        absent = [key for key in keys if key not in tensors]
        if absent:
            problems += [f"{absent[0]} is missing"] if len(absent) < len(keys) else []
            continue
        down, up, *alpha = (tensors[key] for key in keys)
        reads, writes = layers[stem][0].in_features, sum(site.out_features for site in layers[stem])
        if wrong := misfit(down, up, reads, writes):
            problems.append(f"{stem}: {wrong}")
        elif alpha and alpha[0].item() != len(down):
            problems.append(f"{stem}.alpha is {alpha[0].item()}, not the rank {len(down)}")
        elif (most := largest(down, up)) > STRONGEST:
            problems.append(f"{stem} adds numbers of up to {most:.1e} to weights that are below 10")
    if not tensors:
        problems.append("it is empty")
    if problems:
        raise UserError(
            f"The LoRA does not fit {architecture.name} ({len(problems)} problems): {'; '.join(problems[:3])}. "
            "It was not written; was it trained on another base?"
        )


def largest(down: Tensor, up: Tensor) -> float:
    """No number of up @ down is larger."""
    return float(up.double().norm(dim=1).max() * down.double().norm(dim=0).max())


def fuse(fused: Iterable[Site], lora: LoRA) -> tuple[Tensor, Tensor]:
    """One LoRA on a fused layer that does exactly what those on its slices do."""
    fused = list(fused)
    present = [lora[site.name] for site in fused if site.name in lora]
    rank = max(len(down) for down, _ in present)
    down = present[0][0].new_zeros(rank * len(fused), fused[0].in_features)
    up = present[0][1].new_zeros(sum(site.out_features for site in fused), rank * len(fused))
    for index, site in enumerate(fused):
        if site.name in lora:
            site_down, site_up = lora[site.name]
            down[index * rank :][: len(site_down)] = site_down
            up[site.rows, index * rank :][:, : len(site_down)] = site_up
    return down, up


def split(fused: tuple[Site, ...], down: Tensor, up: Tensor) -> LoRA:
    """The LoRAs of a fused layer's slices: `fuse` undone, or, of a LoRA trained fused, the slices of its up."""
    if len(fused) == 1:
        return {fused[0].name: (down, up)}
    rank = len(down) // len(fused)
    columns = [slice(index * rank, (index + 1) * rank) for index in range(len(fused))]
    on_diagonal = sum(int(up[site.rows, block].count_nonzero()) for site, block in zip(fused, columns, strict=True))
    if len(down) % len(fused) or on_diagonal < int(up.count_nonzero()):
        return {site.name: (down.clone(), up[site.rows].clone()) for site in fused}
    lora = {}
    for site, block in zip(fused, columns, strict=True):
        site_down, site_up = down[block], up[site.rows, block]
        used = site_down.any(dim=1) | site_up.any(dim=0)
        if used.any():
            site_rank = int(used.nonzero().max()) + 1
            lora[site.name] = (site_down[:site_rank].clone(), site_up[:, :site_rank].clone())
    return lora


def has_no_alpha(key_format: str, architecture: Architecture) -> bool:
    """Whether a format is diffusers' own; of a UNet, kohya's is what both programs read."""
    return key_format == "diffusers" and architecture.prefix.endswith(".")


def layers_of(key_format: str, architecture: Architecture) -> dict[str, tuple[Site, ...]]:
    """Key stem -> the sites of the layer it stands for, which are several where layers are fused."""
    if key_format not in KEY_FORMATS:
        raise UserError(f"There is no LoRA key format {key_format!r}; choose one of: {', '.join(KEY_FORMATS)}.")
    if key_format == "diffusers":
        spelled = (lambda name: name) if architecture.prefix.endswith(".") else (lambda name: name.replace(".", "_"))
        return {architecture.prefix + spelled(site.name): (site,) for site in architecture.places}
    if not architecture.fused:
        raise UserError(
            f"The key format {key_format!r} is FLUX.1's. For {architecture.name} use 'diffusers': ComfyUI reads it too."
        )
    grouped: dict[str, tuple[Site, ...]] = {}
    for site in architecture.fused:
        stem = f"diffusion_model.{site.module}" if key_format == "bfl" else f"lora_unet_{site.module.replace('.', '_')}"
        grouped[stem] = (*grouped.get(stem, ()), site)
    return grouped


def known_layers(architecture: Architecture) -> dict[str, tuple[Site, ...]]:
    """Every name a layer can have without its prefix, dotted or with underscores -> its sites."""
    known: dict[str, tuple[Site, ...]] = {}
    for key_format in ("diffusers", "bfl")[: 1 + bool(architecture.fused)]:
        for stem, fused in layers_of(key_format, architecture).items():
            name = PREFIXES.sub("", stem)
            known |= {name: fused, name.replace(".", "_"): fused}
    return known | (older_names(known, architecture) if architecture.fused else makers_names(architecture))


# (makers' blocks, diffusers' blocks, what a makers' layer is in diffusers), by the beginning of a base's name.
MAKERS_LAYERS = {
    "flux.2": (
        (
            "double_blocks",
            "transformer_blocks",
            {
                "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
                "img_attn.proj": ("attn.to_out.0",),
                "txt_attn.proj": ("attn.to_add_out",),
                "img_mlp.0": ("ff.linear_in",),
                "img_mlp.2": ("ff.linear_out",),
                "txt_mlp.0": ("ff_context.linear_in",),
                "txt_mlp.2": ("ff_context.linear_out",),
            },
        ),
        (
            "single_blocks",
            "single_transformer_blocks",
            {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
        ),
    ),
    "z-image": tuple(
        (
            blocks,
            blocks,
            {
                "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
                "attention.out": ("attention.to_out.0",),
            },
        )
        for blocks in ("layers", "noise_refiner", "context_refiner")
    ),
}


def makers_names(architecture: Architecture) -> dict[str, tuple[Site, ...]]:
    """The layers of a base that is known by diffusers' names, as those who made it call and fuse them."""
    sites = {site.name: site for site in architecture.places}
    found: dict[str, tuple[Site, ...]] = {}
    for base, renamed in MAKERS_LAYERS.items():
        for (theirs, ours, layers), block in product(renamed, architecture.blocks):
            kind, _, number = block.rpartition(".")
            if not architecture.name.startswith(base) or kind != ours:
                continue
            for layer, parts in layers.items():
                name, own = f"{theirs}.{number}.{layer}", [sites[f"{block}.{part}"] for part in parts]
                starts = accumulate((site.out_features for site in own), initial=0)
                fused = tuple(replace(site, start=start) for site, start in zip(own, starts, strict=False))
                found |= {name: fused, name.replace(".", "_"): fused}
    return found


def older_names(known: dict[str, tuple[Site, ...]], architecture: Architecture) -> dict[str, tuple[Site, ...]]:
    """XLabs' names of FLUX.1's layers, with the stream behind them (1 image, 2 text), and diffusers' before PEFT."""
    found: dict[str, tuple[Site, ...]] = {}
    singles = sum(block.startswith("single_") for block in architecture.blocks)
    for block in range(len(architecture.blocks) - singles):
        stem, attention = f"double_blocks.{block}", f"transformer_blocks.{block}.attn"
        for stream, theirs in (("1", "img_attn"), ("2", "txt_attn")):
            found |= {f"{stem}.processor.{name}{stream}": known[f"{stem}.{theirs}.{name}"] for name in ("qkv", "proj")}
        found[f"{attention}.to_out"] = found[f"{attention}.processor.to_out"] = known[f"{attention}.to_out.0"]
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            found[f"{attention}.processor.{name}"] = known[f"{attention}.{name}"]
    for block in range(singles):
        stem, attention = f"single_blocks.{block}", f"single_transformer_blocks.{block}.attn"
        found[f"{stem}.processor.qkv"] = known[f"{stem}.linear1"][:3]
        found[f"{stem}.processor.proj"] = known[f"{stem}.linear2"]
        found |= {f"{attention}.processor.{name}": known[f"{attention}.{name}"] for name in ("to_q", "to_k", "to_v")}
    return found


def misfit(down: Tensor, up: Tensor, reads: int, writes: int) -> str:
    """What is wrong with the shapes of a LoRA on a layer of so many inputs and outputs, or nothing."""
    if (down.ndim, up.ndim) == (2, 2) and (down.shape[1], up.shape[0]) == (reads, writes) and len(down) == up.shape[1]:
        return ""
    return f"down {list(down.shape)} and up {list(up.shape)} do not fit a layer of {reads} -> {writes}"

"""LoRA files of any maker: from their keys to {site name: (down, up)} with every alpha applied.

A key is a layer's name and a tensor's role. Names may be diffusers', Black Forest Labs' or XLabs', with any prefix,
with dots or underscores; roles those of LoRA, LoKr and LoHa. What belongs to other parts of the model is left out, and
that is said.
"""

import re
from dataclasses import replace
from itertools import accumulate, product
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import UserError
from ..method.adapter import Site
from .architecture import Architecture, LoRA, layers_of
from .lora_foreign import UNKNOWN, notices, part_of, refuse_other_bases, refuse_other_methods
from .lora_products import Declared, Pair, alpha_of, matrix_of, numbers_of, pair_of, scaled

# Whatever stands before a layer's name in the files of other makers, in any order and number.
PREFIXES = re.compile(
    r"^(base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|unet\.|module\.|_orig_mod\.|"
    r"lora_unet_|lora_transformer_|lycoris_)+"
)
# Roles; PEFT puts the adapter's name ("default") behind them, XLabs the stream (1 image, 2 text) before them.
ROLES = (
    re.compile(
        r"^(?P<layer>.+?)[._]lora(?P<stream>[12]?)[._](?:linear_layer\.)?(?P<role>A|B|down|up)"
        r"(?:\.(?!weight|bias|alpha|scale)\w+)?(?:\.weight)?$"
    ),
    re.compile(
        r"^(?P<layer>.+?)\.(?P<role>lokr_w[12](?:_[ab])?|hada_w[12]_[ab]|diff)(?:\.(?!weight)\w+)?(?:\.weight)?$"
    ),
    re.compile(r"^(?P<layer>.+?)(?:[._]lora)?(?:[._](?:A|B|down|up))?(?:\.weight)?\.(?P<role>alpha)$"),
)
NAMES = {"A": "down", "B": "up"}
LONGEST = 500  # characters of a key
LARGEST = 4_000_000_000  # numbers: 16 GB in float32


class Reading(NamedTuple):
    """A LoRA, and what of its file was left out: key -> the part of the model it is of."""

    lora: LoRA
    left: dict[str, str]


def read_lora(tensors: dict[str, Tensor], architecture: Architecture, declared: Declared | None = None) -> Reading:
    """From any key format or a mixture; a UserError if it is of another base or method, damaged, or not finite.

    A fused LoRA that is not made of blocks is read as one LoRA per layer, all with its whole down.
    """
    if any(len(key) > LONGEST for key in tensors):
        raise UserError(f"a name in it has more than {LONGEST} characters: it is no LoRA, or damaged")
    refuse_other_bases({key: tuple(tensor.shape) for key, tensor in tensors.items()}, architecture)
    refuse_other_methods(tensors)
    if declared is not None and declared.dora:
        raise UserError("its configuration says DoRA, which also rescales the base's weights: it cannot be read")
    layers, left = grouped(tensors, architecture)
    refuse_unknown_roles(layers, left)
    parts = {
        layer: {role: matrix_of(tensors[key], key) for role, key in keys.items() if role != "alpha"}
        for layer, (_, keys) in layers.items()
    }
    check_size(parts, layers)
    check_width(parts, layers, architecture)
    taken: dict[tuple[Site, ...], Pair] = {}
    lora: LoRA = {}
    for layer, (fused, keys) in layers.items():
        alpha = alpha_of(tensors[keys["alpha"]], keys["alpha"]) if "alpha" in keys else None
        pair = layer_pair(layer, parts.pop(layer), fused, alpha, declared)
        if fused not in taken:
            taken[fused] = pair
            for name, own in split(fused, *pair).items():
                lora[name] = both(lora[name], own) if name in lora else own
        elif not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(taken[fused], pair, strict=True)):
            raise UserError(f"{layer} is in it twice, under two names and with different numbers")
    order = [site.name for site in architecture.places if site.name in lora]
    refuse_the_useless(tensors, lora, left, architecture)
    return Reading({name: lora[name] for name in order}, left)


Layers = dict[str, tuple[tuple[Site, ...], dict[str, str]]]  # the layer's name in the file -> its sites, role -> key


def grouped(tensors: dict[str, Tensor], architecture: Architecture) -> tuple[Layers, dict[str, str]]:
    """(the layers that the base's blocks have, what is left: key -> of which part it is)."""
    known = known_layers(architecture)
    layers: Layers = {}
    left: dict[str, str] = {}
    for key in tensors:
        layer, role = layer_and_role(key)
        fused = known.get(PREFIXES.sub("", layer).rstrip("_")) if role else None
        if fused is None:
            left[key] = part_of(key, PREFIXES.sub("", key))
            continue
        own = layers.setdefault(layer, (fused, {}))[1]
        if role in own:
            raise UserError(f"{own[role]} and {key} are the same matrix of two LoRAs: a file of one LoRA is needed")
        own[role] = key
    for layer in [name for name, (_, keys) in layers.items() if keys.keys() == {"alpha"}]:
        left[layers.pop(layer)[1]["alpha"]] = "biases" if f"{layer}.diff_b" in tensors else UNKNOWN
    return layers, left


def refuse_unknown_roles(layers: Layers, left: dict[str, str]) -> None:
    """A UserError for what nobody knows beside a layer's matrices: a scale, a mask, a core, without which they are
    another LoRA.
    """
    for key in [key for key, part in left.items() if part == UNKNOWN]:
        ends = (match.start() for match in re.finditer("[._]", key))
        if layer := next((key[:end] for end in ends if key[:end] in layers), None):
            raise UserError(
                f"{layer} also has {key[len(layer) + 1 :]}, which is of a method that is not known here: without it "
                "its matrices are another LoRA. Merge it into the base with the program that made it"
            )


def layer_and_role(key: str) -> tuple[str, str]:
    """What a key says; the role is empty for what is no tensor of a LoRA, LoKr or LoHa."""
    for pattern in ROLES:
        match = pattern.match(key)
        if match:
            found = match.groupdict()
            return found["layer"] + (found.get("stream") or ""), NAMES.get(found["role"], found["role"])
    return key, ""


def layer_pair(
    layer: str, parts: dict[str, Tensor], fused: tuple[Site, ...], alpha: float | None, declared: Declared | None
) -> Pair:
    """What a layer's tensors add, with the scale of its own alpha or else of the configuration."""
    try:
        pair, rank = pair_of(parts, fused[0].in_features, sum(site.out_features for site in fused))
        scale = 1.0
        if alpha is not None and rank is not None:
            scale = alpha / rank
        elif alpha is None and declared is not None and "diff" not in parts:
            scale = declared.scale(PREFIXES.sub("", layer), rank or 1, own_rank="down" in parts)
        return scaled(pair, scale, layer)
    except UserError as error:
        raise error if layer in str(error) else UserError(f"{layer}: {error}") from error


def both(one: Pair, other: Pair) -> Pair:
    """The pair that adds what both add: a layer's own LoRA, and its slice of the fused layer's."""
    return torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]], dim=1)


def check_size(parts: dict[str, dict[str, Tensor]], layers: Layers) -> None:
    """Refuse LoKr, LoHa and whole differences that would not fit into memory as pairs."""
    numbers = sum(
        numbers_of(own, layers[layer][0][0].in_features, sum(site.out_features for site in layers[layer][0]))
        for layer, own in parts.items()
    )
    if numbers > LARGEST:
        raise UserError(
            f"its LoKr, LoHa or whole differences have so high a rank that as an ordinary LoRA they take "
            f"{4 * numbers / 1e9:.0f} GB of memory, more than {4 * LARGEST / 1e9:.0f}. Merge it into the base instead"
        )


def check_width(parts: dict[str, dict[str, Tensor]], layers: Layers, architecture: Architecture) -> None:
    """Refuse a LoRA of a FLUX of another width as that: not one of its layers reads what the base's layer reads."""
    reads = [
        (own["down"].shape[1], layers[layer][0][0].in_features, layer) for layer, own in parts.items() if "down" in own
    ]
    if reads and all(found != wanted for found, wanted, _ in reads):
        found, wanted, layer = reads[0]
        raise UserError(
            f"{layer} takes {found} numbers, in {architecture.name} {wanted}, and so on with every layer: it was "
            "made for another base"
        )


def refuse_the_useless(
    tensors: dict[str, Tensor], lora: LoRA, left: dict[str, str], architecture: Architecture
) -> None:
    """Refuse a file of which nothing, or only what nobody knows, would be left."""
    if not tensors:
        return
    if not lora and set(left.values()) - {UNKNOWN}:
        raise UserError(f"nothing in it is for the blocks of {architecture.name}: {'; '.join(notices(left, tensors))}")
    unknown = [key for key in left if left[key] == UNKNOWN]
    if not lora and not left:
        raise UserError("all its numbers are zero")
    if not lora:
        raise UserError(
            f"it is no LoRA of this base: none of its {len(tensors)} tensors, such as {unknown[0]}, is of a LoRA, "
            f"LoKr or LoHa of a layer of {architecture.name}"
        )
    share = sum(tensors[key].numel() for key in unknown) / sum(tensor.numel() for tensor in tensors.values())
    if share > 0.5:
        raise UserError(f"{share:.0%} of it is not understood: {len(unknown)} tensors such as {unknown[0]}")


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

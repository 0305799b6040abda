"""The down layer of every site, out of any LoRA-like file: two matrices a layer or three, in any key format we know.

A file of a Meta-LoRA's authors may name its matrices as it likes. A layer is known by its name; which of its matrices
is the down layer is known by the matrix's own name or, where that says nothing, by its shape [rank, inputs].
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from torch import Tensor

from ..config import UserError
from ..method.adapter import Site
from .architecture import Architecture
from .lora_foreign import refuse_other_bases
from .lora_formats import PREFIXES, known_layers, split
from .lora_products import STRONGEST, matrix_of
from .lora_reading import layer_and_role

DOWN = re.compile(r"^(lora_A|lora_down|lora\.down|(lora_)?meta_?down|lora_meta_down|lomd|down)(\.\w+)?$", re.IGNORECASE)
UP = re.compile(r"^(lora_B|lora_up|lora\.up|up|lou)(\.\w+)?$", re.IGNORECASE)
MID = re.compile(r"^(lora_)?(mid|lom|lora_C|lora_M)(\.\w+)?$", re.IGNORECASE)
NOT_DOWN = re.compile(r"alpha|bias|dora|magnitude|norm|diff", re.IGNORECASE)


@dataclass(frozen=True)
class Downs:
    """What a file held: site name -> [rank, in], float32; the keys taken, and those left."""

    by_site: dict[str, Tensor]
    taken: list[str]
    left: list[str]


def read_downs(tensors: dict[str, Tensor], architecture: Architecture) -> Downs:
    """The down layers; a UserError if nothing in the file fits this base, or something in it contradicts the base."""
    refuse_other_bases({key: tuple(tensor.shape) for key, tensor in tensors.items()}, architecture)
    layers: dict[tuple[Site, ...], dict[str, str]] = defaultdict(dict)  # layer -> role -> key
    known = known_layers(architecture)
    for key in tensors:
        found = layer_of(key, known)
        if found is not None:
            layers[found[0]][found[1]] = key
    by_site: dict[str, Tensor] = {}
    taken: list[str] = []
    problems: list[str] = []
    for fused, roles in layers.items():
        down, problem = down_key(fused, roles, tensors)
        if down is None:
            problems += [problem] if problem else []
            continue
        matrix = matrix_of(tensors[down], down)
        if matrix.abs().max() > STRONGEST:
            raise UserError(f"{down} holds numbers of {matrix.abs().max():.1e}: it is damaged.")
        by_site |= per_site(fused, matrix, roles, tensors)
        taken.append(down)
    if problems:
        raise UserError(
            f"The file does not fit {architecture.name} at {len(problems)} layers: {'; '.join(problems[:3])}. "
            "It was made for another base (choose it with --backbone), or is damaged."
        )
    if not by_site:
        example = next(iter(tensors), "none")
        if any(layer_and_role(key)[1].startswith(("lokr", "hada")) for key in tensors):
            raise UserError(
                f"It is a LoKr or LoHa ({example}), which has no down layer. `from-loras` takes such files."
            )
        raise UserError(
            f"None of the {len(tensors)} keys is a down layer of {architecture.name}. Found keys such as {example!r}; "
            f"expected a layer's name, such as {architecture.places[1].name!r} in any LoRA key format, "
            "and a matrix of [rank, inputs]."
        )
    order = [site.name for site in architecture.places if site.name in by_site]
    return Downs({name: by_site[name] for name in order}, taken, sorted(tensors.keys() - set(taken)))


def layer_of(key: str, known: dict[str, tuple[Site, ...]]) -> tuple[tuple[Site, ...], str] | None:
    """(the layer's sites, what the key says after the layer's name) or None; the longest name that fits wins."""
    layer, matrix = layer_and_role(key)
    layer = PREFIXES.sub("", layer)
    if matrix in ("down", "up") and layer in known:
        return known[layer], f"lora_{matrix}"
    words = PREFIXES.sub("", key).split(".")
    for count in range(len(words), 0, -1):
        name = ".".join(words[:count])
        if name in known:
            role = ".".join(words[count:])
            return known[name], role.removesuffix(".weight")
    return None


def down_key(fused: tuple[Site, ...], roles: dict[str, str], tensors: dict[str, Tensor]) -> tuple[str | None, str]:
    """(the key of the layer's down matrix or None, what is wrong)."""
    reads = fused[0].in_features
    named = [key for role, key in roles.items() if DOWN.match(role)]
    if not named:
        others = [
            key for role, key in roles.items() if not (UP.match(role) or MID.match(role) or NOT_DOWN.search(role))
        ]
        named = [key for key in others if tensors[key].ndim == 2 and tensors[key].shape[1] == reads > len(tensors[key])]
    if not named:
        return None, ""
    if len(named) > 1:
        return None, f"{' and '.join(named[:2])} could both be the down layer"
    down = tensors[named[0]]
    if down.ndim != 2 or down.shape[1] != reads:
        return None, f"{named[0]} is {list(down.shape)}, expected [rank, {reads}]"
    return named[0], ""


def per_site(
    fused: tuple[Site, ...], down: Tensor, roles: dict[str, str], tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The down of each slice of a fused layer. Where the up shows blocks, each slice has its own; else all share it."""
    up = next((matrix_of(tensors[key], key) for role, key in roles.items() if UP.match(role)), None)
    writes = sum(site.out_features for site in fused)
    if len(fused) == 1 or up is None or tuple(up.shape) != (writes, len(down)) or not up.any():
        return {site.name: down.clone() for site in fused}
    own = split(fused, down, up)
    return {site.name: own[site.name][0] if site.name in own else down.clone() for site in fused}

"""What one layer's tensors add to its weight, as an exact pair (down [rank, in], up [out, rank]) in float32.

| kind | tensors | adds |
|---|---|---|
| LoRA | down, up | up @ down |
| LoKr | w1 or w1_a @ w1_b, w2 or w2_a @ w2_b | kron(w1, w2) |
| LoHa | w1_a, w1_b, w2_a, w2_b | (w1_a @ w1_b) * (w2_a @ w2_b), by elements |
| full | diff | diff |

kron(a b, c d) = kron(a, c) kron(b, d), and a product by elements of ranks r and s has rank r s: so LoKr and LoHa are
ordinary LoRAs of a higher rank, without rounding. Where that rank is no lower than the layer's own, one factor is one.

How strongly it adds may be declared beside the matrices: diffusers and SimpleTuner put PEFT's configuration into the
file's own metadata, PEFT into adapter_config.json. A layer's scale is alpha / r, or alpha / sqrt(r) with use_rslora;
`alpha_pattern` and `rank_pattern` override both by the layer's name, by PEFT's rule: a pattern is a regular expression
that must match the name's end.
"""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config import UserError
from .architecture import STRONGEST, largest, misfit

Pair = tuple[Tensor, Tensor]
KIND_OF = {"down": "LoRA", "up": "LoRA", "lokr": "LoKr", "hada": "LoHa", "diff": "whole difference"}
KRON = "lokr_w1", "lokr_w2"
HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
METADATA_KEY = "lora_adapter_metadata"  # diffusers' LORA_ADAPTER_METADATA_KEY
CONFIG_FILE = "adapter_config.json"
DEFAULT = 8  # PEFT's own r and alpha
# How PEFT begins a LoRA by taking it out of the base's weights: it is to be added to what is left of them.
OF_CHANGED_BASES = re.compile("pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)
REPEATED = re.compile(r"[*+?{]")


def pair_of(parts: dict[str, Tensor], reads: int, writes: int) -> tuple[Pair, int | None]:
    """(the pair without its alpha, the rank that its alpha is divided by or None where alpha does not count)."""
    if len(kinds := {KIND_OF[role[:4]] for role in parts}) > 1:
        raise UserError(f"it is a {' and a '.join(sorted(kinds))} at once, of which programs take different ones")
    if "diff" in parts:
        return as_pair(fitting(parts["diff"], writes, reads, "diff")), None
    if any(role.startswith("hada") for role in parts):
        return loha(needed(parts, HADA, "LoHa"), reads, writes), len(parts["hada_w1_b"])
    if any(role.startswith("lokr") for role in parts):
        return lokr(parts, reads, writes)
    down, up = needed(parts, ("down", "up"), "LoRA")
    if wrong := misfit(down, up, reads, writes):
        raise UserError(wrong)
    return (down, up), len(down)


def lokr(parts: dict[str, Tensor], reads: int, writes: int) -> tuple[Pair, int | None]:
    """A Kronecker product of two matrices, each whole or in two factors."""
    (down_1, up_1), (down_2, up_2) = (
        as_pair(parts[name]) if name in parts else needed(parts, (f"{name}_b", f"{name}_a"), "LoKr") for name in KRON
    )
    for name, down, up in (("lokr_w1", down_1, up_1), ("lokr_w2", down_2, up_2)):
        if len(down) != up.shape[1]:
            raise UserError(f"{name}_a {list(up.shape)} and {name}_b {list(down.shape)} are no product")
    size = len(up_1) * len(up_2), down_1.shape[1] * down_2.shape[1]
    if size != (writes, reads):
        raise UserError(f"its LoKr is {size[1]} -> {size[0]} and does not fit a layer of {reads} -> {writes}")
    ranks: list[int | None] = [None, *(len(parts[f"{name}_b"]) for name in KRON if name not in parts)]
    if len(down_1) * len(down_2) >= min(reads, writes):
        return as_pair(torch.kron((up_1 @ down_1).contiguous(), (up_2 @ down_2).contiguous())), ranks[-1]
    pair = torch.kron(down_1.contiguous(), down_2.contiguous()), torch.kron(up_1.contiguous(), up_2.contiguous())
    return pair, ranks[-1]


def loha(factors: list[Tensor], reads: int, writes: int) -> Pair:
    """The product by elements of two products."""
    up_1, down_1, up_2, down_2 = factors
    for up, down in ((up_1, down_1), (up_2, down_2)):
        if (len(up), down.shape[1]) != (writes, reads) or up.shape[1] != len(down):
            raise UserError(
                f"its LoHa of {list(up.shape)} @ {list(down.shape)} does not fit a {reads} -> {writes} layer"
            )
    if len(down_1) * len(down_2) >= min(reads, writes):
        return as_pair((up_1 @ down_1) * (up_2 @ down_2))
    down = (down_1[:, None] * down_2[None]).reshape(-1, reads)
    return down, (up_1[:, :, None] * up_2[:, None]).reshape(writes, -1)


def as_pair(matrix: Tensor) -> Pair:
    """The matrix and a unit matrix on its smaller side."""
    writes, reads = matrix.shape
    return (matrix, torch.eye(writes)) if writes <= reads else (torch.eye(reads), matrix)


def numbers_of(parts: dict[str, Tensor], reads: int, writes: int) -> int:
    """How many numbers the pair will have: known before it is made."""
    ranks = {"lokr": 1, "hada": 1}
    for kind, names in (("lokr", KRON), ("hada", ("hada_w1", "hada_w2"))):
        for name in names:
            rank = len(parts[f"{name}_b"]) if f"{name}_b" in parts else min(parts[name].shape) if name in parts else 0
            ranks[kind] *= rank
    rank = max(ranks.values())
    return (reads + writes) * min(rank, reads, writes) if rank else 2 * reads * writes * ("diff" in parts)


def needed(parts: dict[str, Tensor], roles: tuple[str, ...], kind: str) -> list[Tensor]:
    """The tensors of these roles; a UserError names the one that is missing."""
    absent = [role for role in roles if role not in parts]
    if absent:
        raise UserError(f"its {kind} has no {absent[0]}: the file is damaged or not whole")
    return [parts[role] for role in roles]


def fitting(matrix: Tensor, rows: int, columns: int, name: str) -> Tensor:
    """The matrix, if it has this shape."""
    if tuple(matrix.shape) != (rows, columns):
        raise UserError(f"its {name} is {list(matrix.shape)} and does not fit a layer of {columns} -> {rows}")
    return matrix


def matrix_of(tensor: Tensor, name: str) -> Tensor:
    """A matrix of floating-point numbers in float32, all finite; convolutions of size 1 are matrices too."""
    if not tensor.is_floating_point():
        raise UserError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}, not floating-point numbers")
    if tensor.ndim > 2 and tensor.shape[2:].numel() == 1:
        tensor = tensor.flatten(1)
    if tensor.ndim != 2 or not tensor.numel():
        raise UserError(f"{name} is {list(tensor.shape)}, expected a matrix")
    matrix = tensor.float()
    if not torch.isfinite(matrix).all():
        raise UserError(f"{name} is not finite: it holds NaN or infinity")
    return matrix


def alpha_of(tensor: Tensor, name: str) -> float:
    """The one number of an alpha."""
    if tensor.numel() != 1 or tensor.is_complex() or tensor.dtype == torch.bool:
        raise UserError(f"{name} is {list(tensor.shape)} of {tensor.dtype}, expected one number")
    alpha = float(tensor.item())
    if not abs(alpha) < 1e30:
        raise UserError(f"{name} is {alpha}")
    return alpha


def scaled(pair: Pair, scale: float, layer: str) -> Pair:
    """The pair with its scale in the up; refused where it would drown the layer that it is added to."""
    down, up = pair
    if scale != 1:
        up = up * scale
    most = largest(down, up)
    if not torch.isfinite(up).all() or not most <= STRONGEST:
        raise UserError(
            f"{layer} adds numbers of up to {most:.1e} to weights that are below 10: it is damaged, or not finite"
        )
    return down, up


@dataclass(frozen=True)
class Declared:
    """What a configuration says of the scales of layers."""

    r: float | None
    alpha: float
    rank_pattern: dict[str, float] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False

    def scale(self, layer: str, rank: int, own_rank: bool) -> float:
        """Of a layer whose matrices have this rank; `own_rank`: the declared rank must be that, as in a LoRA."""
        r = matching(self.rank_pattern, layer, self.r)
        if r is None:
            r = rank
        if own_rank and r != rank:
            raise UserError(f"its PEFT configuration says rank {r:g} for {layer}, whose matrices have rank {rank}")
        return matching(self.alpha_pattern, layer, self.alpha) / (math.sqrt(r) if self.rslora else r)


def matching(patterns: dict[str, float], layer: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches, as PEFT's get_pattern_key finds it."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer)), otherwise)


def declared_in(metadata: dict[str, str], config_json: str | None) -> Declared | None:
    """From the file's metadata, else from the text of an adapter_config.json; a UserError if it makes no sense."""
    if METADATA_KEY in metadata:
        config = parsed(metadata[METADATA_KEY])
        prefix = "transformer."
        if not config.keys() & {"r", "lora_alpha"}:  # a pipeline's; a model's own save_lora_adapter writes no prefix
            config = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        return declared(config) if config else None
    return None if config_json is None else declared(parsed(config_json))


def parsed(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("its PEFT configuration is not JSON, so the LoRA's strength is unknown") from error
    if not isinstance(config, dict):
        raise UserError("its PEFT configuration is not a JSON object, so the LoRA's strength is unknown")
    return config


def declared(config: dict[str, Any]) -> Declared:
    """A checked configuration; in PEFT's LoKr and LoHa, alpha is called alpha."""
    r = config.get("r")
    if OF_CHANGED_BASES.match(begun := str(config.get("init_lora_weights"))):
        raise UserError(
            f"its configuration says that it was begun as {begun}, which also changes the base's weights: save it with "
            "PEFT's path_initial_model_for_weight_conversion, as an ordinary LoRA"
        )
    return Declared(
        r=None if r is None else checked("r", r, positive=True),
        alpha=checked("lora_alpha", config.get("lora_alpha", config.get("alpha", DEFAULT))),
        rank_pattern=patterns(config.get("rank_pattern"), "rank_pattern", positive=True),
        alpha_pattern=patterns(config.get("alpha_pattern"), "alpha_pattern"),
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
    )


def checked(name: str, value: Any, positive: bool = False) -> float:
    """A value of the configuration, if it is a finite number of use."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise UserError(f"its PEFT configuration has {name} {str(value)[:40]!r}, which is no number of use")
    if positive and value < 1:
        raise UserError(f"its PEFT configuration has {name} {value}, expected 1 or more")
    return float(value)


def patterns(given: Any, name: str, positive: bool = False) -> dict[str, float]:
    """Regular expression -> number. Repeated groups are refused: their matching may never end."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UserError(f"its {name} is {str(given)[:40]!r}, expected layers' names with numbers")
    for pattern in given:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise UserError(f"its {name} has {pattern[:60]!r}, which is no regular expression") from error
        if len(pattern) > 300 or len(REPEATED.findall(pattern)) > 3 or re.search(r"\)[*+?{]", pattern):
            raise UserError(f"its {name} has {pattern[:60]!r}, which is too involved to be a layer's name")
    return {pattern: checked(name, value, positive) for pattern, value in given.items()}

"""What one layer's tensors add to its weight, as an exact pair (down [rank, in], up [out, rank]) in float32.

| kind | tensors | adds |
|---|---|---|
| LoRA | down, up | up @ down |
| LoKr | w1 or w1_a @ w1_b, w2 or w2_a @ w2_b | kron(w1, w2) |
| LoHa | w1_a, w1_b, w2_a, w2_b | (w1_a @ w1_b) * (w2_a @ w2_b), by elements |
| full | diff | diff |

kron(a b, c d) = kron(a, c) kron(b, d), and a product by elements of ranks r and s has rank r s: so LoKr and LoHa are
ordinary LoRAs of a higher rank, without rounding. Where that rank is no lower than the layer's own, one factor is one.
"""

import torch
from torch import Tensor

from ..config import UserError

Pair = tuple[Tensor, Tensor]
KRON = "lokr_w1", "lokr_w2"
HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
STRONGEST = 1e6  # of a delta's numbers; a layer's own weights are below 10


def pair_of(parts: dict[str, Tensor], reads: int, writes: int) -> tuple[Pair, int | None]:
    """(the pair without its alpha, the rank that its alpha is divided by or None where alpha does not count)."""
    if "diff" in parts:
        return as_pair(fitting(parts["diff"], writes, reads, "diff")), None
    if any(role.startswith("hada") for role in parts):
        return loha(needed(parts, HADA, "LoHa"), reads, writes), len(parts["hada_w1_b"])
    if any(role.startswith("lokr") for role in parts):
        return lokr(parts, reads, writes)
    down, up = needed(parts, ("down", "up"), "LoRA")
    if (down.shape[1], up.shape[0]) != (reads, writes) or len(down) != up.shape[1]:
        raise UserError(f"down {list(down.shape)} and up {list(up.shape)} do not fit a layer of {reads} -> {writes}")
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
    most = up.double().norm(dim=1).max() * down.double().norm(dim=0).max()  # no number of up @ down is larger
    if not torch.isfinite(up).all() or not most <= STRONGEST:
        raise UserError(
            f"{layer} adds numbers of up to {most:.1e} to weights that are below 10: it is damaged, or not finite"
        )
    return down, up

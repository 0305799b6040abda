"""A Meta-Down distilled from ordinary LoRAs: the directions of input space that their updates share most."""

from collections.abc import Sequence

import torch
from torch import Tensor

ROW_LENGTH = 3**-0.5  # of a fresh down layer's rows (uniform in +-1/sqrt(in)): heads then learn at the pace they know


def shared_directions(loras: Sequence[tuple[Tensor, Tensor]], meta_rank: int, generator: torch.Generator) -> Tensor:
    """Meta-Down [meta_rank, in] of one site from LoRAs (down [r, in], up [out, r]) of any ranks.

    The rows span the top right singular vectors of all updates up @ down, one below the other, each update scaled to
    norm 1 so that no LoRA outweighs the others. Where the LoRAs have fewer directions, random ones, orthogonal to
    those, fill up. Sorted by how much is shared, all rows equally long.
    """
    stacked = torch.cat([weighted(down.double(), up.double()) for down, up in loras])
    _, strengths, directions = torch.linalg.svd(stacked, full_matrices=False)
    more_than_rounding = strengths > 1e-9 * max([1e-30, *strengths.tolist()])
    found = directions[: min(meta_rank, int(more_than_rounding.sum()))]
    random = torch.randn(meta_rank - len(found), stacked.shape[1], generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.cat([found, random]).T)
    rows = basis.T[:meta_rank]
    signs = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()  # a singular vector's own is a library's whim
    return (rows * signs * ROW_LENGTH).float()


def weighted(down: Tensor, up: Tensor) -> Tensor:
    """A matrix [r, in] with the right singular vectors and singular values of up @ down, scaled to norm 1.

    up = Q R with orthonormal Q, so up @ down and R @ down differ by a rotation of the output alone.
    """
    small = torch.linalg.qr(up).R @ down
    norm = small.norm()
    return small / norm if norm > 0 else small

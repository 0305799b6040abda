"""The mean of the heads that stage 1 learned: where a new person's heads may start instead of at zero (our option).

Mids and ups are not averaged one by one. Each person's mid starts at random, and (mid, up) adds the same as
(-mid, -up), so that such means would cancel. What is averaged is the product up @ mid [out, meta_rank]: what a person
adds on top of the Meta-Down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .adapter import Adapters
from .even_rows import ROW_LENGTH
from .flat import Heads, views
from .ranks import Ranks
from .shared_directions import signs


@dataclass(frozen=True)
class MeanHeads:
    """By site: the mean product [out, meta_rank], and the Meta-Down [meta_rank, in] on which it is to be read."""

    people: int = 0
    products: dict[str, Tensor] = field(default_factory=dict)
    downs: dict[str, Tensor] = field(default_factory=dict)

    def joined_by(self, sums: dict[str, Tensor], people: int, downs: dict[str, Tensor]) -> "MeanHeads":
        """With so many more people, whose products add up to `sums` on the Meta-Down as it now is.

        It has moved since the others were counted: their mean is written anew, so that product @ down is as before as
        nearly as it can be.
        """
        count = self.people + people
        if not people:
            return self
        before = self.on(downs).products
        products = {
            name: (self.people * before[name] + total) / count if self.people else total / count
            for name, total in sums.items()
        }
        return MeanHeads(count, products, downs)

    def on(self, downs: dict[str, Tensor]) -> "MeanHeads":
        """The same people's, written for another Meta-Down."""
        products = {name: moved(one, self.downs[name], downs[name]) for name, one in self.products.items()}
        return MeanHeads(self.people, products, downs)


def moved(product: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """The product [out, meta_rank] for which product @ now is nearest to what product @ before was (least squares)."""
    change = torch.linalg.lstsq(now.double().T, before.double().T).solution.T
    return (product.double() @ change).to(product)


def summed_products(heads: Heads, names: Sequence[str], ranks: Ranks) -> tuple[dict[str, Tensor], int]:
    """(by site the sum of up @ mid over everyone in the bucket who has moved, how many they are), over all processes.

    `names`: the sites, in the order of the heads' parameters, which are mid and up of each.
    """
    trained = heads.steps > 0
    parts = views(heads.weights[trained.to(heads.weights.device)], heads.shapes)
    products = [torch.einsum("nor,nri->oi", up, mid) for mid, up in zip(parts[::2], parts[1::2], strict=True)]
    flat = torch.cat([*(product.flatten() for product in products), heads.weights.new_tensor([trained.sum()])])
    ranks.add_up(flat)
    found = views(flat[:-1], [product.shape for product in products])
    return {name: one.cpu() for name, one in zip(names, found, strict=True)}, int(flat[-1])


def start_at_mean(adapters: Adapters, products: dict[str, Tensor]) -> None:
    """Set fresh heads so that up @ mid is the mean product, or what is nearest to it at the heads' rank."""
    for name, adapter in adapters.by_name.items():
        assert adapter.mid is not None, "a plain LoRA has no heads"
        mid, up = factored(products[name], adapter.up.shape[-1])
        adapter.mid.data.copy_(mid)
        adapter.up.data.copy_(up)


def factored(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(mid [rank, meta_rank], up [out, rank]) with up @ mid nearest to the product; mid as long as a fresh one."""
    left, strengths, right = torch.linalg.svd(product.double(), full_matrices=False)
    right, left, strengths = right[:rank], left[:, :rank], strengths[:rank]
    sign = signs(right)
    return (right * sign * ROW_LENGTH).float(), (left * strengths * sign.T / ROW_LENGTH).float()

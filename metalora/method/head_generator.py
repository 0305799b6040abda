"""The head generator: what a face embedding says about the heads of its person.

A LoRA of a person is  Up_i Mid_i MetaDown.  Here Up is shared, and Mid_i = diag(g_i): one gain for each direction of
the Meta-Down at each site, made from the embedding of one photo. The generator stands for the thousands of heads that
Algorithm 1 fits and throws away; after stage 1 heads may start at what it says of a new face, or fresh.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .adapter import Adapter, Site, small_random

WIDE, NARROW = 512, 256  # hidden widths: 128 -> 512 -> 256 -> 52 x 16 are 0.4 M numbers
SPREAD = 2.0  # of the gains around 1 at the start: faces must differ, or their gradients do not either


class HeadGenerator(nn.Module):
    """Face embeddings [b, d] -> gains [b, sites, meta_rank]. Each row depends on its own face alone."""

    mean: Tensor
    spread: Tensor

    def __init__(self, embeddings: Tensor, sites: int, meta_rank: int, generator: torch.Generator):
        """`embeddings` [n, d] are the training people's: by their mean and spread each number is put on one scale."""
        super().__init__()
        self.sites, self.meta_rank = sites, meta_rank
        self.register_buffer("mean", embeddings.mean(0))
        self.register_buffer("spread", embeddings.std(0).clamp_min(1e-6))
        first, second = nn.Linear(embeddings.shape[1], WIDE), nn.Linear(WIDE, NARROW)
        gains = nn.Linear(NARROW, sites * meta_rank)
        with torch.no_grad():
            for layer in (first, second):
                layer.weight.copy_(small_random(layer.out_features, layer.in_features, generator))
                layer.bias.zero_()
            gains.weight.copy_(torch.randn(gains.weight.shape, generator=generator) * SPREAD / math.sqrt(NARROW))
            gains.bias.fill_(1.0)
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), gains)

    def forward(self, faces: Tensor) -> Tensor:
        gains = self.layers((faces - self.mean) / self.spread)
        return gains.unflatten(-1, (self.sites, self.meta_rank))


class GeneratedAdapter(Adapter):
    """up(g * down(x)), with each sample's own gains g [b, meta_rank], which `gains` holds while a batch passes."""

    gains: Tensor

    def forward(self, x: Tensor, adapter_indices: Tensor | None = None) -> Tensor:
        """x [b, ..., in] -> [b, ..., out] in x's dtype."""
        gains = self.gains.to(x.dtype)
        inner = x @ self.down.to(x.dtype).t()
        return (inner * gains.view(len(gains), *[1] * (x.ndim - 2), -1)) @ self.up.to(x.dtype).t()


def generated_adapters(sites: Sequence[Site], meta_down: dict[str, Tensor]) -> dict[str, GeneratedAdapter]:
    """On a Meta-Down, with a shared up of zeros: a new one changes nothing, whatever the gains are."""
    return {
        site.name: GeneratedAdapter(
            meta_down[site.name].clone(), None, torch.zeros(site.out_features, len(meta_down[site.name]))
        )
        for site in sites
    }

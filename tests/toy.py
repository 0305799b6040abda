"""The toy backbone: the smallest network with every kind of site, for laws that need no FLUX."""

import torch
from torch import Tensor, nn

from metalora.method.adapter import Site


class ToyNetwork(nn.Module):
    """Tokens [b, n, 8] and a modulation vector [b, 8] through a fused and two plain linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(8, 6)
        self.qkv = nn.Linear(8, 18)
        self.out = nn.Linear(6, 8)

    def forward(self, tokens: Tensor, vector: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        mixed = torch.softmax(q @ k.mT, dim=-1) @ v
        return self.out(torch.tanh(mixed * (1 + self.modulation(vector)[:, None])))


TOY_SITES = [
    Site("block.modulation", "modulation", 8, 6),
    Site("block.to_q", "qkv", 8, 6, start=0),
    Site("block.to_k", "qkv", 8, 6, start=6),
    Site("block.to_v", "qkv", 8, 6, start=12),
    Site("block.out", "out", 6, 8),
]


class ToyDenoiser:
    """The toy network as a velocity function of latents [b, 2, 2, 4]: 2 tokens of 8 numbers."""

    def __init__(self, network: ToyNetwork):
        self.network = network

    def __call__(self, latents: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        return self.network(latents.reshape(len(latents), 2, 8), prompt + t[:, None]).reshape(latents.shape)

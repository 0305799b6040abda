"""The strongest directions of each layer's inputs: the part of input space in which a base's tokens nearly all lie.

Found by orthogonal iteration (Golub and Van Loan, Matrix Computations, section 8.2) on C = mean of x x^T, from forward
passes alone and without anything of size [in, in].
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .adapter import Site, linears
from .flow import generator_of
from .ranks import ALONE, Ranks

FOLLOWED = 256  # of a layer's inputs, at most; a layer that has no more keeps all


class InputDirections:
    """By layer: orthonormal columns [in, followed], turned towards the inputs' strongest directions."""

    def __init__(self, sites: Iterable[Site], seed: int, device: torch.device | str = "cpu", ranks: Ranks = ALONE):
        self.sites, self.ranks = list(sites), ranks
        self.columns: dict[str, Tensor] = {}
        for site in self.sites:
            if site.in_features <= FOLLOWED:
                self.columns[site.module] = torch.eye(site.in_features, device=device)
            elif site.module not in self.columns:
                drawn = torch.randn(site.in_features, FOLLOWED, generator=generator_of(seed, "inputs", site.module))
                self.columns[site.module] = torch.linalg.qr(drawn).Q.to(device)
        self.forget()

    @property
    def wide(self) -> list[Site]:
        """The sites at which there is something to be found."""
        return [site for site in self.sites if site.in_features > FOLLOWED]

    def forget(self) -> None:
        """Begin a turn."""
        self.sums = {site.module: torch.zeros_like(self.columns[site.module]) for site in self.wide}

    @contextmanager
    def heard(self, network: nn.Module) -> Iterator[None]:
        """While inside, every forward pass through the network counts."""

        @torch.no_grad()
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            x = inputs[0].flatten(0, -2).float()
            name = names[module]
            self.sums[name] += x.T @ (x @ self.columns[name]) / len(x)

        layers = linears(network, self.wide)
        names: dict[nn.Module, str] = {module: sites[0].module for module, sites in layers}
        handles = [module.register_forward_hook(hook) for module, _ in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def turn(self) -> None:
        """The end of a turn: follow the directions that they were turned into."""
        for name, sums in self.sums.items():
            self.ranks.add_up(sums)
            self.columns[name] = torch.linalg.qr(sums).Q
        self.forget()

    def by_site(self) -> dict[str, Tensor]:
        """The columns of each site's layer."""
        return {site.name: self.columns[site.module] for site in self.sites}

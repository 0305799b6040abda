"""Where a Meta-Down may start: the directions of input space in which people's first gradients lie.

The first step of anyone's training follows, at each site,

    G = dL/dW = sum over tokens of (dL/dy) x^T,     [out, in], at the weights of the base,

and heads on a Meta-Down D see G D^T of it, nothing else. So D's rows span the top right singular vectors of many
people's G, one below the other, each scaled to norm 1. LoRA-GA (Wang et al., arXiv 2407.05000, section 3) starts a LoRA
of one task so; here it is the start of what a whole domain shares.

They are found by orthogonal iteration (Golub and Van Loan, Matrix Computations, section 8.2), which needs only products
with the matrix, so that nothing of size [in, in] is ever kept and the people can be streamed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import UserError
from .adapter import Site, linears
from .even_rows import ROW_LENGTH
from .flow import generator_of
from .ranks import ALONE, Ranks
from .shared_directions import signs

TURNS = 3  # of the iteration, each over other people
SPARE = 2  # times meta_rank directions are followed: the last ones of an iteration converge last


Listener = Callable[[Site, Tensor, Tensor], None]


class Found(NamedTuple):
    """[meta_rank, in] for each site, and the share of people's gradients (squared norms) that lies in its rows."""

    meta_down: dict[str, Tensor]
    held: float


def random_directions(sites: Iterable[Site], meta_rank: int, seed: int) -> dict[str, Tensor]:
    """Where the iteration starts: [in, followed], orthonormal columns, for each site."""
    drawn, sites = {}, list(sites)
    refuse_more_directions_than_inputs(sites, meta_rank)
    for site in sites:
        followed = min(site.in_features, SPARE * meta_rank)
        drawn[site.name] = torch.randn(site.in_features, followed, generator=generator_of(seed, "followed", site.name))
    return {name: torch.linalg.qr(columns).Q for name, columns in drawn.items()}


def refuse_more_directions_than_inputs(sites: Iterable[Site], meta_rank: int) -> None:
    """A UserError that names the first site with too few."""
    for site in sites:
        if meta_rank > site.in_features:
            raise UserError(
                f"{site.name} has {site.in_features} inputs, fewer than the {meta_rank} directions of a Meta-Down of "
                "that rank. Lower --meta-rank."
            )


def directions_of(meta_down: dict[str, Tensor]) -> dict[str, Tensor]:
    """The space that a Meta-Down's rows span, to be measured: [in, meta_rank], orthonormal columns, for each site."""
    return {name: torch.linalg.qr(down.double().T).Q.float() for name, down in meta_down.items()}


@contextmanager
def every_gradient(network: nn.Module, sites: Sequence[Site], add: Listener) -> Iterator[None]:
    """While inside, a backward pass through the frozen network calls add(site, G [out, in], x [tokens, in])."""

    def of_layer(own: Sequence[Site]):  # type: ignore[no-untyped-def]  # torch names no type for a hook
        @torch.no_grad()
        def heard(x: Tensor, delta: Tensor) -> None:
            # The gradient of one layer, for a moment: what training it would need anyway.
            gradient = delta.flatten(0, -2).float().T @ x
            for site in own:
                add(site, gradient[site.rows], x)

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            if not output.requires_grad:  # nothing before it is trained
                output.requires_grad_()
            output.register_hook(lambda delta: heard(x, delta))

        return hook

    handles = [module.register_forward_hook(of_layer(own)) for module, own in linears(network, sites)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class FirstGradients:
    """By site, the directions followed, [in, followed], and sum_i G_i^T G_i / |G_i|^2 times them, of this turn."""

    def __init__(
        self,
        sites: Iterable[Site],
        directions: dict[str, Tensor],
        device: torch.device | str = "cpu",
        ranks: Ranks = ALONE,
    ):
        self.sites, self.ranks = list(sites), ranks
        self.directions = {site.name: directions[site.name].to(device) for site in self.sites}
        self.forget()

    def forget(self) -> None:
        """Begin a turn."""
        self.sums = {name: torch.zeros_like(directions) for name, directions in self.directions.items()}
        self.people = 0

    @contextmanager
    def heard(self, network: nn.Module) -> Iterator[None]:
        """While inside, every backward pass through the frozen network counts as one person's gradient."""
        with every_gradient(network, self.sites, self._add):
            yield

    def _add(self, site: Site, gradient: Tensor, _inputs: Tensor) -> None:
        square = gradient.square().sum()
        if square > 0:  # a layer that is not used here says nothing
            self.sums[site.name] += gradient.T @ (gradient @ self.directions[site.name]) / square

    def counted(self) -> None:
        """One person's backward pass is over."""
        self.people += 1

    def turn(self) -> None:
        """The end of a turn: follow the directions that they were turned into."""
        self._exchange()
        self.directions = {name: torch.linalg.qr(turned).Q for name, turned in self.sums.items()}
        self.forget()

    def found(self, meta_rank: int) -> Found:
        """After the last turn: the best of the directions followed (Rayleigh and Ritz), as long as fresh rows."""
        self._exchange()
        downs, held = {}, []
        for site in self.sites:
            directions, sums = self.directions[site.name].double(), self.sums[site.name].double()
            product = directions.T @ sums
            strengths, within = torch.linalg.eigh((product + product.T) / 2)
            rows = (directions @ within[:, -meta_rank:].flip(1)).T
            downs[site.name] = (rows * signs(rows) * ROW_LENGTH).float()
            held.append(strengths[-meta_rank:].sum().item() / self.people)
        return Found(downs, sum(held) / len(held))

    def _exchange(self) -> None:
        for sums in self.sums.values():
            self.ranks.add_up(sums)
        count = next(iter(self.sums.values())).new_tensor([float(self.people)])
        self.ranks.add_up(count)
        self.people = int(count.item())

"""Where a Meta-Down may start: the directions in which two looks at one person agree, for the least change elsewhere.

A person's first gradient G (first_gradients.py) is mostly chance: of the photo, the time and the noise. Two looks at a
person, A_i at some of their photos and B_i at others with other noise, agree in what is the person's or everyone's, and
looks at two people in what is everyone's. So

    S = mean over i of A_i^T B_i - mean over i != j of A_i^T B_j,    made symmetric, [in, in]

keeps what is the person's alone. An update dW = U D that lowers the loss also changes the output for everything else,
by tr(dW C dW^T) with C = mean of x x^T over all inputs. So the rows of D are those of the largest v^T S v / v^T C v:
with v = C^-1/2 u the top eigenvectors u of C^-1/2 S C^-1/2. Whitening inputs is K-FAC's half of a natural gradient
(Martens and Grosse, arXiv 1503.05671, section 3); without it the directions found are the inputs' own mean, which is
in every gradient and tells nobody apart.

S and C are kept within the strongest directions of each layer's inputs (input_directions.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .adapter import Site
from .even_rows import ROW_LENGTH
from .first_gradients import every_gradient, refuse_more_directions_than_inputs
from .ranks import ALONE, Ranks
from .shared_directions import signs

LOOKS = 2
DAMPING = 0.03  # of the inputs' mean square, added to C: a direction that inputs never take is no bargain
LONGEST = 4.0  # times a fresh row


class RepeatedGradients:
    """Looks at one person after the other: `look` around their backward passes, `counted` after both looks."""

    def __init__(
        self,
        sites: Iterable[Site],
        inputs: dict[str, Tensor],
        device: torch.device | str = "cpu",
        ranks: Ranks = ALONE,
    ):
        self.sites, self.ranks = list(sites), ranks
        self.inputs = {site.name: inputs[site.name].to(device) for site in self.sites}
        self.within = {name: one.new_zeros(one.shape[1], one.shape[1]) for name, one in self.inputs.items()}
        self.energy = {name: torch.zeros_like(one) for name, one in self.within.items()}  # C, summed over passes
        shapes = {site.name: (site.out_features, len(self.within[site.name])) for site in self.sites}
        self.sums = [{name: self.within[name].new_zeros(shape) for name, shape in shapes.items()} for _ in range(LOOKS)]
        self.passes = self.people = 0
        self.begin()

    def begin(self) -> None:
        """With another person."""
        self.looks: Sequence[dict[str, Tensor]] = [{} for _ in range(LOOKS)]

    @contextmanager
    def look(self, network: nn.Module, which: int) -> Iterator[None]:
        """Around a backward pass of look 0 or 1; several passes of one look add up."""
        looked = self.looks[which]

        def add(site: Site, gradient: Tensor, x: Tensor) -> None:
            columns = self.inputs[site.name]
            if len(columns) > columns.shape[1]:  # all of them are followed otherwise
                gradient, x = gradient @ columns, x @ columns
            looked[site.name] = looked[site.name] + gradient if site.name in looked else gradient.clone()
            self.energy[site.name] += x.T @ x / len(x)

        with every_gradient(network, self.sites, add):
            yield
        self.passes += 1

    def counted(self) -> None:
        """Both looks at a person are over. Everyone counts the same, however long their gradients are."""
        for name, first in self.looks[0].items():
            second = self.looks[1][name]
            length = ((first.square().sum() + second.square().sum()) / 2).sqrt()
            if length == 0:
                continue  # a layer that is not used here says nothing
            first, second = first / length, second / length
            self.within[name] += first.T @ second
            self.sums[0][name] += first
            self.sums[1][name] += second
        self.people += 1
        self.begin()

    def found(self, meta_rank: int) -> dict[str, Tensor]:
        """[meta_rank, in] for each site: orthogonal rows, along which inputs are as strong as along fresh ones."""
        refuse_more_directions_than_inputs(self.sites, meta_rank)
        self._exchange()
        assert self.people > 1, "what is everyone's needs two people"
        return {site.name: self._rows(site, meta_rank) for site in self.sites}

    def _rows(self, site: Site, meta_rank: int) -> Tensor:
        columns = self.inputs[site.name].double()
        energy = self.energy[site.name].double() / self.passes
        mean = energy.trace() / site.in_features  # what one direction has on average: nearly all of it is followed
        strengths, directions = torch.linalg.eigh(energy)
        shrink = directions * (strengths.clamp_min(0) + DAMPING * mean).rsqrt() @ directions.T
        _, best = torch.linalg.eigh(shrink @ self._own(site.name) @ shrink)
        found = shrink @ best[:, -meta_rank:].flip(1)
        basis = torch.linalg.qr(found).Q  # in the order of what they are worth
        length = (mean / (basis * (energy @ basis)).sum(dim=0).mean()).sqrt().clamp(max=LONGEST)
        rows = (columns @ basis).T
        return (rows * signs(rows) * ROW_LENGTH * length).float().cpu()

    def _own(self, name: str) -> Tensor:
        """S of a site."""
        within, first, second = (one[name].double() for one in (self.within, *self.sums))
        pairs = self.people * (self.people - 1)
        own = within / self.people - (first.T @ second - within) / pairs
        return (own + own.T) / 2

    def _exchange(self) -> None:
        for sums in (
            *self.within.values(),
            *self.energy.values(),
            *(one for part in self.sums for one in part.values()),
        ):
            self.ranks.add_up(sums)
        counts = torch.tensor([float(self.passes), float(self.people)], device=next(iter(self.energy.values())).device)
        self.ranks.add_up(counts)
        self.passes, self.people = (int(count) for count in counts.tolist())

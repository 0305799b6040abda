"""What heads on a Meta-Down see of people's first gradients, and how much of that is the person's.

A gradient of one batch is a person's, everyone's and chance's (photo, time, noise) together. Two looks at a person, at
other photos with other noise, agree in what is the person's or everyone's; looks at two people agree in what is
everyone's. So with A and B the two looks, at each site,

    <A_i, B_i>         of one person: theirs and everyone's
    <A_i, B_j>, i != j of two: everyone's

each as a share of what gradients are in all. Chance has no share in either, on average over people.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .adapter import Site
from .first_gradients import directions_of, every_gradient

LOOKS = 2


@dataclass(frozen=True)
class Seen:
    """Shares of squared norms, at one site or as means over sites."""

    held: float  # of a first gradient, in the Meta-Down's rows
    own: float  # of what is held: the person's, which nobody else has
    common: float  # of what is held: everyone's
    input_energy: float  # mean square of inputs along the rows, in times that along a random direction


class SeenByHeads:
    """Looks at one person after the other: `look` around each backward pass, `counted` after a person's two."""

    def __init__(self, sites: Iterable[Site], meta_down: dict[str, Tensor], device: torch.device | str = "cpu"):
        self.sites = list(sites)
        self.rows = {name: one.to(device) for name, one in directions_of(meta_down).items()}
        self.looks: list[dict[str, Tensor]] = []  # at the present person: G D^T
        self.wholes: list[dict[str, Tensor]] = []  # |G|^2
        self.sums: dict[str, dict[str, Tensor]] = {}
        self.people = 0

    @contextmanager
    def look(self, network: nn.Module) -> Iterator[None]:
        """Around a backward pass that is one look."""
        self.looks.append({})
        self.wholes.append({})
        with every_gradient(network, self.sites, self._add):
            yield

    def _add(self, site: Site, gradient: Tensor, inputs: Tensor) -> None:
        rows = self.rows[site.name]
        self.looks[-1][site.name] = gradient @ rows
        self.wholes[-1][site.name] = gradient.square().sum()
        along = (inputs @ rows).square().mean()
        everywhere = inputs.square().mean()
        self._sum(site.name, energy=along / everywhere.clamp_min(1e-30))

    def counted(self) -> None:
        """Both looks at a person are over."""
        assert len(self.looks) == LOOKS, f"{len(self.looks)} looks at a person"
        self.people += 1
        for name, first in self.looks[0].items():
            second = self.looks[1][name]
            whole = (self.wholes[0][name] + self.wholes[1][name]) / 2
            if whole == 0:
                continue  # a layer that is not used here says nothing
            first, second = first / whole.sqrt(), second / whole.sqrt()
            held = (first.square().sum() + second.square().sum()) / 2
            self._sum(name, held=held, within=(first * second).sum(), first=first, second=second)
        self.looks, self.wholes = [], []

    def seen(self) -> Seen:
        """The mean of all sites."""
        found = [(one.held, one.own, one.common, one.input_energy) for one in self.by_site().values()]
        return Seen(*(sum(parts) / len(found) for parts in zip(*found, strict=True)))

    def by_site(self) -> dict[str, Seen]:
        """Of each site that is used; two looks at a few people say little of one site alone."""
        assert self.people > 1, "what is everyone's needs two people"
        return {name: self._of_site(sums) for name, sums in self.sums.items() if "held" in sums}

    def _of_site(self, sums: dict[str, Tensor]) -> Seen:
        held, within = sums["held"].item() / self.people, sums["within"].item() / self.people
        pairs = self.people * (self.people - 1)
        between = ((sums["first"] * sums["second"]).sum().item() - sums["within"].item()) / pairs
        energy = sums["energy"].item() / (LOOKS * self.people)
        return Seen(held, (within - between) / held, between / held, energy)

    def _sum(self, name: str, **parts: Tensor) -> None:
        own = self.sums.setdefault(name, {})
        for key, value in parts.items():
            own[key] = own[key] + value if key in own else value

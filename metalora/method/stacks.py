"""Several people's adapters as one stack, to be trained in one forward pass, and one person's taken out again."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .adapter import Adapter, Adapters


def stacked(people: Sequence[Adapters]) -> Adapters:
    """The adapters of people who share their sites, their scale and, where they have one, their Meta-Down.

    Sample b of a batch goes through person indices[b] inside `using(indices)`. One person's are themselves.
    """
    first = people[0]
    if len(people) == 1:
        return first
    return Adapters(
        first.sites.values(), {name: _stacked([one.by_name[name] for one in people]) for name in first.by_name}
    )


def taken_out(stack: Adapters, row: int) -> Adapters:
    """One person of a stack, as adapters of their own: copies."""
    return Adapters(stack.sites.values(), {name: _taken_out(adapter, row) for name, adapter in stack.by_name.items()})


def _stacked(adapters: Sequence[Adapter]) -> Adapter:
    first = adapters[0]
    assert all(adapter.scale == first.scale for adapter in adapters)
    up = torch.stack([adapter.up.detach() for adapter in adapters])
    if first.mid is None:
        return Adapter(torch.stack([adapter.down.detach() for adapter in adapters]), None, up, first.scale)
    assert all(torch.equal(adapter.down, first.down) for adapter in adapters), "a stack shares one Meta-Down"
    mids = [adapter.mid.detach() for adapter in adapters if adapter.mid is not None]
    return Adapter(first.down.detach().clone(), torch.stack(mids), up, first.scale)


def _taken_out(adapter: Adapter, row: int) -> Adapter:
    down, up = _row(adapter.down, row), _row(adapter.up, row)
    return Adapter(down, None if adapter.mid is None else _row(adapter.mid, row), up, adapter.scale)


def _row(weight: nn.Parameter, row: int) -> Tensor:
    return (weight if weight.ndim == 2 else weight[row]).detach().clone()

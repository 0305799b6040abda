"""Several people's adapters as one stack, to be trained in one forward pass, and one person's taken out again."""

from collections.abc import Sequence

import torch

from .adapter import Adapter, Adapters


def stacked(people: Sequence[Adapters]) -> Adapters:
    """The adapters of people who share their sites, their scale and, where they have one, their Meta-Down.

    Sample b of a batch goes through person indices[b] inside `using(indices)`. One person's are themselves.
    """
    first = people[0]
    if len(people) == 1:
        return first
    by_name = {}
    for name, one in first.by_name.items():
        own = [person.by_name[name] for person in people]
        assert all(other.scale == one.scale for other in own)
        parts = {role: torch.stack([other.weights()[role].detach() for other in own]) for role in one.weights()}
        if one.mid is not None:
            assert all(torch.equal(other.down, one.down) for other in own), "a stack shares one Meta-Down"
            parts["down"] = one.down.detach().clone()
        by_name[name] = Adapter(parts["down"], parts.get("mid"), parts["up"], one.scale)
    return Adapters(first.sites.values(), by_name)


def taken_out(stack: Adapters, row: int) -> Adapters:
    """One person of a stack, as adapters of their own: copies."""
    by_name = {}
    for name, one in stack.by_name.items():
        parts = {role: (w if w.ndim == 2 else w[row]).detach().clone() for role, w in one.weights().items()}
        by_name[name] = Adapter(parts["down"], parts.get("mid"), parts["up"], one.scale)
    return Adapters(stack.sites.values(), by_name)

"""The weights' average along the training's path, which lies closer to the minimum than the weights of any one step.

At a constant learning rate the weights circle around where they would settle (Polyak and Juditsky 1992); an
exponential moving average, as in other trainers' EMA, gets there without a falling rate, so that one training still
gives LoRAs at several step counts. Training goes on from the weights themselves: the average changes no step of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

AVERAGE = "average"  # beside AdamW's moments in its state, so that it is saved and put back with them


@torch.no_grad()
def follow(optimizer: torch.optim.Optimizer, window: int) -> None:
    """After a step: move the average by 1/window towards the weights; the plain mean of all steps before `window`."""
    for flat in weights_of(optimizer):
        state = optimizer.state[flat]
        average = state.setdefault(AVERAGE, torch.zeros_like(flat))
        average.lerp_(flat, 1 / min(window, int(state["step"])))


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """While inside, the weights are their average, if one was kept; afterwards they are the same bits as before."""
    kept = [(flat, flat.detach().clone()) for flat in weights_of(optimizer)]
    settle(optimizer)
    try:
        yield
    finally:
        with torch.no_grad():
            for flat, weights in kept:
                flat.copy_(weights)


@torch.no_grad()
def settle(optimizer: torch.optim.Optimizer) -> None:
    """Training is over: the weights become their average, if one was kept."""
    for flat in weights_of(optimizer):
        if (average := optimizer.state[flat].get(AVERAGE)) is not None:
            flat.copy_(average)


def weights_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What it moves."""
    return [flat for group in optimizer.param_groups for flat in group["params"]]

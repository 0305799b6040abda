"""Many weights as one buffer, so that an optimizer, its moving average, a sum over processes and a file see one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .flow import generator_of

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's own


def views(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """flat [..., total] as one view [..., *shape] for each shape, in order."""
    parts = flat.split([shape.numel() for shape in shapes], dim=-1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


def in_one_buffer(weights: Sequence[nn.Parameter], spare: int = 0) -> tuple[nn.Parameter, Tensor]:
    """(one parameter [total], its gradient's buffer [total + spare]): weights and gradients become views of them."""
    shapes = [weight.shape for weight in weights]
    flat = nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
    gradients = flat.new_zeros(flat.numel() + spare)
    flat.grad = gradients[: flat.numel()]
    for weight, value, gradient in zip(weights, views(flat.data, shapes), views(flat.grad, shapes), strict=True):
        weight.data, weight.grad = value, gradient
    return flat, gradients


class FlatDown:
    """The Meta-Down of all sites: one parameter, one gradient, torch's own AdamW.

    The gradient's buffer has one number more, which carries the loss along when processes add theirs up.
    """

    def __init__(self, weights: Sequence[nn.Parameter], weight_decay: float):
        self.weights = list(weights)
        self.flat, self.exchanged = in_one_buffer(weights, spare=1)
        self.optimizer = torch.optim.AdamW([self.flat], weight_decay=weight_decay, fused=True)

    def train(self, on: bool) -> None:
        """Whether backward reaches it; without, no linear layer has to save its input."""
        for weight in self.weights:
            weight.requires_grad_(on)

    def step(self, rate: float) -> None:
        """One AdamW step of the gradients that backward has left, which are cleared."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.exchanged.zero_()


class Heads:
    """Heads of some identities with their optimizer's state, a row each; a row that is not worn does not change at all.

    weights, mean, square [n, numbers of one identity's heads]; steps [n], how often a row has moved.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], names: Sequence[str], fresh: Sequence[Tensor]):
        self.parameters, self.names = list(parameters), list(names)
        self.shapes = [parameter.shape[1:] for parameter in parameters]
        numbers = sum(shape.numel() for shape in self.shapes)
        device, dtype = parameters[0].device, parameters[0].dtype
        self.weights = (torch.stack(list(fresh)) if fresh else torch.empty(0, numbers)).to(device, dtype)
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.steps = torch.zeros(len(names), dtype=torch.float64)
        self.rows = torch.zeros(0, dtype=torch.long)  # that are worn

    def load(self, rows: Tensor) -> None:
        """Sample b of the next batch goes through row rows[b]: the parameters become copies of those rows."""
        self.rows = rows
        worn = self.weights[rows.to(self.weights.device)]
        for parameter, value in zip(self.parameters, views(worn, self.shapes), strict=True):
            parameter.grad = None
            parameter.data = value

    @torch.no_grad()
    def step(self, rate: float, weight_decay: float) -> None:
        """AdamW (Loshchilov and Hutter, as in torch) on the worn rows alone; a row worn twice adds its gradients."""
        rows, slot = self.rows.unique(return_inverse=True)
        device = self.weights.device
        self.steps[rows] += 1
        self.gradient = torch.cat([_gradient(parameter).flatten(1) for parameter in self.parameters], dim=1)
        corrections = [(1 - beta ** self.steps[rows])[:, None].to(self.weights) for beta in BETAS]
        rows, slot = rows.to(device), slot.to(device)
        gradient = self.weights.new_zeros(len(rows), self.weights.shape[1]).index_add_(0, slot, self.gradient)
        mean = self.mean[rows].lerp_(gradient, 1 - BETAS[0])
        square = self.square[rows].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        change = (mean / corrections[0]) / ((square / corrections[1]).sqrt_().add_(EPSILON))
        self.weights[rows] = self.weights[rows].mul_(1 - rate * weight_decay).sub_(change, alpha=rate)
        self.mean[rows], self.square[rows] = mean, square


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "no loss has been sent backward through the worn heads"
    return parameter.grad


def fresh_heads(shapes: Sequence[tuple[str, torch.Size]], *key: object) -> Tensor:
    """One identity's heads as a flat row: mids as a LoRA's down starts, ups zero; drawn from the key alone."""
    generator = generator_of(*key)
    parts = []
    for role, shape in shapes:
        drawn = torch.zeros(shape.numel())
        if role == "mid":
            drawn = (torch.rand(shape.numel(), generator=generator) * 2 - 1) / shape[-1] ** 0.5
        parts.append(drawn)
    return torch.cat(parts)


# The weights' average along the training's path lies closer to the minimum than the weights of any one step. At a
# constant learning rate the weights circle around where they would settle (Polyak and Juditsky 1992); an exponential
# moving average, as in other trainers' EMA, gets there without a falling rate, so that one training still gives LoRAs
# at several step counts. Training goes on from the weights themselves: the average changes no step of it.
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

"""What a long training needs to stop and go on: a moving average of the weights, and checkpoints never half written."""

import pathlib

import torch
from torch import nn


class MovingAverage:
    """The weights averaged over about the last `horizon` steps; young averages forget faster."""

    def __init__(self, model: nn.Module, horizon: float = 1000):
        self.horizon, self.steps = horizon, 0
        self.weights = [weight.detach().clone() for weight in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        share = max(1 / self.horizon, 1 / (1 + self.steps / 10))
        torch._foreach_lerp_(self.weights, list(model.parameters()), share)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> nn.Module:
        for weight, average in zip(model.parameters(), self.weights, strict=True):
            weight.copy_(average)
        return model

    def state_dict(self) -> dict:
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.weights = state["steps"], state["weights"]


def save_state(path: pathlib.Path, state: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: pathlib.Path) -> dict | None:
    """The last checkpoint, or None when the training is new."""
    return torch.load(path, weights_only=True) if path.exists() else None


def learning_rate(step: int, steps: int, peak: float, warm_up: int = 200, decay: float = 0.25) -> float:
    """Up in `warm_up` steps, flat, and down over the last share `decay`; until then more steps can be asked for."""
    return peak * min(1.0, (step + 1) / warm_up, max(0.02, (steps - step) / (decay * steps)))

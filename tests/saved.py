"""Counting what autograd keeps for backward."""

import torch
from torch import Tensor, nn


def kept_for_backward(model: nn.Module, own: list[Tensor], forward) -> dict[int, Tensor]:
    """Storage address -> a tensor on it, for everything a forward pass saves beside the weights."""
    weights = {w.untyped_storage().data_ptr() for w in [*model.parameters(), *own]}
    kept: dict[int, Tensor] = {}

    def remember(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept[address] = tensor  # holding it keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        forward()
    return kept


def bytes_of(kept: dict[int, Tensor]) -> int:
    """Their storages, each counted once."""
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

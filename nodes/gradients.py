"""Right gradients through ComfyUI's networks.

Their blocks add into tensors in place (`txt += ...`, `x += ...`) after a norm has kept them for backward. Without
checkpointing autograd notices; with whole blocks checkpointed it does not, and gradients are wrong in silence. So norms
get copies here, and a block that is computed again in backward gets copies of what it was given the first time.

Nothing of the network is replaced but the flags and the wrapping of its weights, and that only for a while.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .bridge import sites, training


@dataclass
class Recomputing:
    """Whether blocks are computed again in backward instead of keeping their activations."""

    on: bool = False


@contextmanager
def trainable(network: nn.Module) -> Iterator[Recomputing]:
    """While inside, autograd through the frozen `network` is right; afterwards it is as it was, also after an error."""
    with ExitStack() as stack:
        stack.enter_context(frozen_weights(network))
        stack.enter_context(guarded_norms(network))
        stack.enter_context(training.own_copies(network))
        stack.enter_context(training.differentiable_kernels())
        yield stack.enter_context(recomputed_blocks(network))


@contextmanager
def guarded_norms(network: nn.Module) -> Iterator[None]:
    """Norms keep copies of their inputs, so that nobody can overwrite what backward needs."""

    def copied(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].clone(), *inputs[1:]) if torch.is_grad_enabled() else inputs

    with ExitStack() as stack:
        for module in network.modules():
            if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                stack.enter_context(module.register_forward_pre_hook(copied))
        yield


@contextmanager
def frozen_weights(network: nn.Module) -> Iterator[None]:
    """No weight collects a gradient, and each is an ordinary tensor.

    Models that were loaded in a prompt are made of inference tensors, which autograd refuses to keep. Such a weight is
    replaced by an ordinary one on the same memory, and put back afterwards; quantized kinds make ordinary tensors of
    themselves.
    """
    weights = [
        (module, name, weight, weight.requires_grad)
        for module in network.modules()
        for name, weight in module._parameters.items()
        if weight is not None
    ]
    try:
        for module, name, weight, _ in weights:
            if weight.is_inference() and training.is_plain(weight):
                ordinary = nn.Parameter(on_the_same_memory(weight), requires_grad=False)
                vars(ordinary).update(vars(weight))  # what ComfyUI has noted on it
                module._parameters[name] = ordinary
            elif not weight.is_inference():
                weight.requires_grad_(False)
        yield
    finally:
        for module, name, weight, trained in weights:
            module._parameters[name] = weight
            if not weight.is_inference():
                weight.requires_grad_(trained)


def on_the_same_memory(weight: Tensor) -> Tensor:
    """The same numbers as an ordinary tensor: what is an inference tensor is not the memory but its wrapping."""
    ordinary = torch.empty(0, dtype=weight.dtype, device=weight.device)
    return ordinary.set_(weight.untyped_storage(), weight.storage_offset(), weight.shape, weight.stride())


@contextmanager
def recomputed_blocks(network: nn.Module) -> Iterator[Recomputing]:
    """While inside, each repeated block can be computed again in backward: its `forward` is wrapped."""
    how, blocks = Recomputing(), [block for _, block in sites.blocks_of(network)]
    try:
        for block in blocks:
            block.forward = recomputed(block.forward, how)
        yield how
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def recomputed(forward: Callable[..., Any], how: Recomputing) -> Callable[..., Any]:
    """A block's forward pass, as a checkpoint where that is on."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return forward(*map(own_copy, args), **{name: own_copy(value) for name, value in kwargs.items()})

    def chosen(*args: Any, **kwargs: Any) -> Any:
        if not (how.on and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        # Options are a dictionary that the network's loop goes on writing to: the values are those of now.
        now: dict[str, Any] = {
            name: dict(value) if isinstance(value, dict) else value for name, value in kwargs.items()
        }
        return checkpoint(run, *args, use_reentrant=False, **now)

    return chosen


def own_copy(value: Any) -> Any:
    """A tensor that the block may overwrite."""
    return value.clone() if isinstance(value, Tensor) and value.is_floating_point() else value

"""Right gradients through ComfyUI's FLUX.

Its blocks add into tensors in place (`txt += ...`, `x += ...`) after a norm has kept them for backward. Without
checkpointing autograd notices; with whole blocks checkpointed it does not, and gradients are wrong in silence. So norms
get copies here, and a block that is computed again in backward gets copies of what it was given the first time.

Nothing of the network is replaced but the flags and the wrapping of its weights, and that only for a while.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .bridge import training


@contextmanager
def trainable(network: nn.Module) -> Iterator[None]:
    """While inside, autograd through the frozen `network` is right; afterwards it is as it was, also after an error."""
    with ExitStack() as stack:
        stack.enter_context(frozen_weights(network))
        stack.enter_context(guarded_norms(network))
        stack.enter_context(training.own_copies(network))
        stack.enter_context(training.differentiable_kernels())
        yield


@contextmanager
def guarded_norms(network: nn.Module) -> Iterator[None]:
    """Norms keep copies of their inputs, so that nobody can overwrite what backward needs."""

    def copied(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].clone(), *inputs[1:]) if torch.is_grad_enabled() else inputs

    norms = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
    handles = [norm.register_forward_pre_hook(copied) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def frozen_weights(network: nn.Module) -> Iterator[None]:
    """No weight collects a gradient, and each is an ordinary tensor.

    Models that were loaded in a prompt are made of inference tensors, which autograd refuses to keep. Such a weight is
    replaced by an ordinary one on the same memory, and put back afterwards.
    """
    weights = [
        (module, name, weight, weight.requires_grad)
        for module in network.modules()
        for name, weight in module._parameters.items()
        if weight is not None
    ]
    try:
        for module, name, weight, _ in weights:
            if (
                weight.is_inference() and type(weight) is nn.Parameter
            ):  # quantized kinds make ordinary tensors themselves
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


def recomputed_blocks(network: nn.Module) -> dict[str, Any]:
    """`transformer_options` that make FLUX compute each block again in backward instead of keeping its activations.

    Not through the "original_block" that ComfyUI hands to a replacement: that one means the block which its loop has
    come to, and in backward the loop is over.
    """
    double: Any = network.double_blocks
    single: Any = network.single_blocks
    replacements = {("double_block", index): recomputed(block) for index, block in enumerate(double)}
    replacements |= {("single_block", index): recomputed(block) for index, block in enumerate(single)}
    return {"patches_replace": {"dit": replacements}}


def recomputed(block: nn.Module) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Tensor]]:
    """A block replacement as ComfyUI calls it: (what the block gets, the original) -> what it returns, by name."""

    def replacement(given: dict[str, Any], _original: dict[str, Any]) -> dict[str, Tensor]:
        def run() -> Any:
            rest = {name: value for name, value in given.items() if name not in ("img", "txt")}
            streams = [given[name].clone() for name in ("img", "txt") if name in given]  # it overwrites them
            return block(*streams, **rest)

        made = checkpoint(run, use_reentrant=False)
        return dict(zip(("img", "txt"), made if isinstance(made, tuple) else (made,), strict=False))

    return replacement

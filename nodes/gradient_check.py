"""A check of the gradients of a user's very model, on the inputs its blocks really get; it takes a second."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..metalora.config import UserError
from ..metalora.method.adapter import is_linear
from .bridge import sites
from .gradients import Recomputing, recomputed

LARGEST_ERROR = 0.05  # the same computation twice; kernels may round differently


@dataclass
class Call:
    """What a block was given."""

    block: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def check_gradients(network: nn.Module, run: Callable[[], Tensor]) -> None:
    """Refuse to train where the first block of a kind in this very model has wrong gradients; `run` computes once.

    Without checkpointing autograd itself notices what is overwritten, so a gradient that it returns is right; with
    checkpointing it must be the same one.
    """
    for call in first_calls(network, run):
        if problem := what_is_wrong(call):
            raise UserError(
                f"The gradients of this model's {type(call.block).__name__} are wrong: {problem}. Training would learn "
                "something else. Either this ComfyUI cannot train this kind of model, or another node pack has changed "
                "its blocks: try with the other node packs disabled, and please report it with your versions."
            )


def first_calls(network: nn.Module, run: Callable[[], Tensor]) -> list[Call]:
    """The first block of each kind, with copies of what it is given in one forward pass."""
    firsts: dict[tuple[str, type], nn.Module] = {}
    for path, block in sites.blocks_of(network):
        firsts.setdefault((path.split(".")[0], type(block)), block)
    calls: dict[nn.Module, Call] = {}

    def caught(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if block not in calls:
            calls[block] = Call(block, tuple(map(copied, args)), {name: copied(v) for name, v in kwargs.items()})

    with ExitStack() as hooks, torch.no_grad():
        for block in firsts.values():
            hooks.enter_context(block.register_forward_pre_hook(caught, with_kwargs=True))
        run()
    return list(calls.values())


def copied(value: Any) -> Any:
    """Of tensors, also in tuples; of a dictionary its own."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        return type(value)(map(copied, value))
    return dict(value) if isinstance(value, dict) else value


def what_is_wrong(call: Call) -> str:
    """In words; empty where nothing is."""
    try:
        with noted_outputs(call.block) as outputs:
            plain, reached = gradients_of(call, Recomputing(False), outputs)
        again, _ = gradients_of(call, Recomputing(True), {})
    except RuntimeError as broken:
        if "no autograd formula" in str(broken) or "does not require grad" in str(broken):
            return f"an operation in it has no backward ({broken})"
        if "inplace" not in str(broken):
            raise
        return "what backward needs is overwritten"
    if missed := [name for name, found in reached.items() if not found]:
        return f"some part of {missed[0]} gets none"
    apart = sum((a - b).square().sum().item() for a, b in zip(plain, again, strict=True))
    whole = sum(a.square().sum().item() for a in plain)
    error = (apart / whole) ** 0.5 if whole else 1.0
    return "" if error < LARGEST_ERROR else f"they are {error:.0%} off when a block is computed again"


Outputs = dict[str, tuple[Tensor, int]]  # of linear layers, with the width of what they read


@contextmanager
def noted_outputs(block: nn.Module) -> Iterator[Outputs]:
    """While inside, the outputs of the block's linear layers are noted."""
    outputs: Outputs = {}

    def noted(name: str) -> Callable[..., None]:
        def note(layer: Any, _inputs: Any, output: Tensor) -> None:
            if output.requires_grad:
                outputs[name] = output, layer.in_features

        return note

    with ExitStack() as hooks:
        for name, layer in block.named_modules():
            if is_linear(layer):
                hooks.enter_context(layer.register_forward_hook(noted(name)))
        yield outputs


def gradients_of(call: Call, how: Recomputing, outputs: Outputs) -> tuple[list[Tensor], dict[str, bool]]:
    """Of a weighted sum of all that the block returns: (those of its streams of tokens, which outputs were reached).

    Nothing is added to the gradients of adapters that the block may be wearing.
    """
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3):
            return copied(value)
        leaves.append(value.clone().requires_grad_())
        return leaves[-1].clone()  # a block is given no leaves

    with torch.enable_grad():
        args, kwargs = tuple(map(leaf, call.args)), {name: leaf(value) for name, value in call.kwargs.items()}
        made = recomputed(type(call.block).forward.__get__(call.block), how)(*args, **kwargs)
        tensors = [x for x in (made if isinstance(made, tuple) else (made,)) if isinstance(x, Tensor)]
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(x.shape, generator=generator).to(x.device) for x in tensors]
        whole = torch.stack([(x.float() * weight).sum() for x, weight in zip(tensors, weights, strict=True)]).sum()
        inner = [output for output, _ in outputs.values()]
        found = torch.autograd.grad(whole, [*leaves, *inner], allow_unused=True)
    reached = {
        name: in_every_slice(gradient, width)
        for (name, (_, width)), gradient in zip(outputs.items(), found[len(leaves) :], strict=True)
    }
    return [gradient.float() for gradient in found[: len(leaves)] if gradient is not None], reached


def in_every_slice(gradient: Tensor | None, width: int) -> bool:
    """Whether there is some in each slice of an output: of queries, keys and values, a kernel may lose one."""
    if gradient is None:
        return False
    size = width if gradient.shape[-1] % width == 0 else gradient.shape[-1]
    return all(part.any().item() for part in gradient.split(size, dim=-1))

"""A check of the gradients of a user's very model, before anything is trained on it; it takes a second."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..metalora.config import UserError
from .gradients import recomputed

LARGEST_ERROR = 0.05  # the same computation twice; kernels may round differently
IMAGE_TOKENS, TEXT_TOKENS = 16, 8  # of the check

Streams = dict[str, Tensor]


def check_gradients(network: nn.Module, device: torch.device, dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Refuse to train where the first double or single block of this very model has wrong gradients.

    Without checkpointing autograd itself notices what is overwritten, so a gradient that it returns is right; with
    checkpointing it must be the same one. `options` are the `transformer_options` of the training.
    """
    generator = torch.Generator().manual_seed(0)
    model: Any = network

    def drawn(tokens: int) -> Tensor:
        return torch.randn(1, tokens, model.hidden_size, generator=generator).to(device, dtype)

    image, text, vector, both = (drawn(n) for n in (IMAGE_TOKENS, TEXT_TOKENS, 1, IMAGE_TOKENS + TEXT_TOKENS))
    rotation = model.pe_embedder(torch.zeros(1, IMAGE_TOKENS + TEXT_TOKENS, 3, device=device))
    rest = {"vec": vector[:, 0], "pe": rotation, "transformer_options": options}
    for block, streams in (
        (model.double_blocks[0], {"img": image, "txt": text}),
        (model.single_blocks[0], {"img": both}),
    ):
        if problem := what_is_wrong(block, streams, rest, model.hidden_size):
            raise UserError(
                f"The gradients of this model's {type(block).__name__} are wrong: {problem}. Training would learn "
                "something else. Another node pack or a newer ComfyUI may have changed its blocks: try with the "
                "other node packs disabled, and please report it with your versions."
            )


def what_is_wrong(block: nn.Module, streams: Streams, rest: dict[str, Any], width: int) -> str:
    """In words; empty where nothing is."""
    try:
        with kept_outputs(block) as outputs:
            plain = gradients_of(lambda given: block(*given.values(), **rest), streams)
        again = gradients_of(lambda given: tuple(recomputed(block)({**given, **rest}, {}).values()), streams)
    except RuntimeError as broken:
        if "inplace" not in str(broken):
            raise
        return "what backward needs is overwritten"
    if missed := [name for name, output in outputs.items() if not reached(output, width)]:
        return f"some part of {missed[0]} gets none"
    apart = sum((a - b).square().sum().item() for a, b in zip(plain, again, strict=True))
    error = (apart / sum(a.square().sum().item() for a in plain)) ** 0.5
    return "" if error < LARGEST_ERROR else f"they are {error:.0%} off when a block is computed again"


@contextmanager
def kept_outputs(block: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While inside, the outputs of the block's linear layers are noted, and keep their gradients."""
    outputs: dict[str, Tensor] = {}

    def noted(name: str) -> Callable[..., None]:
        def note(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            if output.requires_grad:
                output.retain_grad()
                outputs[name] = output

        return note

    layers = [(name, layer) for name, layer in block.named_modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_hook(noted(name)) for name, layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def reached(output: Tensor, width: int) -> bool:
    """Whether a gradient reaches each slice of an output: of queries, keys and values, a kernel may lose one."""
    return output.grad is not None and all(part.any().item() for part in output.grad.split(width, dim=-1))


def gradients_of(function: Callable[[Streams], Any], streams: Streams) -> list[Tensor]:
    """Of a weighted sum of all that the function returns, with respect to the streams."""
    leaves = {name: stream.clone().requires_grad_() for name, stream in streams.items()}
    with torch.enable_grad():
        made = function({name: leaf.clone() for name, leaf in leaves.items()})  # a block is given no leaves
        tensors = made if isinstance(made, tuple) else (made,)
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(x.shape, generator=generator).to(x.device) for x in tensors]
        torch.stack([(x.float() * weight).sum() for x, weight in zip(tensors, weights, strict=True)]).sum().backward()
    return [leaf.grad.float() for leaf in leaves.values() if leaf.grad is not None]

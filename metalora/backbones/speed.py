"""What makes the frozen transformer faster or smaller without changing what it is: each can be had alone.

Swapped blocks leave the result as it is, compiling and the attention kernel up to rounding; weights in 8 or 4 bits do
not quite. Checkpointing computes blocks a second time in backward to save memory: full checkpointing keeps each block's
input, a third of the matrix products more; selective checkpointing keeps the outputs of the base's products and of
attention as well, and recomputes only what is cheap: norms, gates, activations, the adapters.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from ..config import UserError
from .architecture import HEAD
from .block_swapping import lists_of
from .quantized import EIGHT_BIT_PRODUCT

# diffusers' names, from the fastest where each is at home; "auto" is torch's own choice.
ATTENTION = {
    "auto": "native",
    "cudnn": "_native_cudnn",
    "flash-3": "_flash_3",
    "flash": "_native_flash",
    "efficient": "_native_efficient",
    "math": "_native_math",
}
ON_CUDA_ALONE = ("cudnn", "flash-3", "efficient")
# How often blocks may be traced: each kind, its first one, with and without gradients, for each shape of adapters.
TRACES = 64


def compile_blocks(network: Any) -> None:
    """One graph for all blocks of a kind and for every aspect ratio: a number of tokens that is only a name."""
    dynamo = torch._dynamo.config
    dynamo.cache_size_limit = max(dynamo.cache_size_limit, TRACES)
    for block in chain.from_iterable(lists_of(network)):  # diffusers' own loop knows no blocks of Stable Diffusion 3.5
        block.compile(fullgraph=True, dynamic=True)


def set_attention(network: Any, name: str) -> None:
    """One of ATTENTION; a UserError where it is not to be had."""
    try:
        network.set_attention_backend(ATTENTION[name])
    except (RuntimeError, ImportError) as error:
        raise UserError(f"Attention {name!r} cannot be used here: {error}. Use auto.") from error


class Checkpointing(IntEnum):
    """In this order, so that a plain yes means FULL and a plain no NONE."""

    NONE = 0
    FULL = 1
    SELECTIVE = 2


def selective(block: Callable, *inputs: object) -> object:
    """A block whose cheap operations backward computes again: diffusers calls it in the place of the block."""
    context = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=context)


def _policy(_context: object, operation: Any, *inputs: object, **_options: object) -> CheckpointPolicy:
    if operation in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
        weight = inputs[-1]
        assert isinstance(weight, Tensor)
        # An adapter's matrices are thinner than an attention head is wide, and cheap to multiply with again.
        keep = min(weight.shape) >= HEAD
    else:
        keep = operation is EIGHT_BIT_PRODUCT or "scaled_dot_product" in str(operation)
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

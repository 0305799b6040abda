"""How much of a transformer's blocks is computed a second time in backward, to save memory.

Full checkpointing keeps each block's input and computes the whole block again: a third of the matrix products more.
Selective checkpointing keeps the outputs of the base's products and of attention as well, and recomputes only what is
cheap: norms, gates, activations, the adapters.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from .eight_bit import EIGHT_BIT_PRODUCT
from .keys import HEAD


class Checkpointing(IntEnum):
    """In this order, so that a plain yes means FULL and a plain no NONE."""

    NONE = 0
    FULL = 1
    SELECTIVE = 2


def set_checkpointing(network: Any, how: int) -> None:
    """Of a diffusers transformer, from its next forward pass on."""
    if how == Checkpointing.NONE:
        network.disable_gradient_checkpointing()
    elif how == Checkpointing.FULL:
        network.enable_gradient_checkpointing()
    else:
        network.enable_gradient_checkpointing(_selective)


def _selective(block: Callable, *inputs: object) -> object:
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

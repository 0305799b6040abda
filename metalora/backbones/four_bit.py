"""A frozen base in 4 bits: NF4 weights in blocks of 64 (QLoRA, arXiv 2305.14314), through bitsandbytes' kernels.

A layer's weights are widened while it computes, in forward and again in backward, which keeps the packed ones alone.
Only the input's gradient is needed, so nothing of the input is kept. The scales stay in float32: half a bit a weight.
Why not through diffusers: see eight_bit.py.
"""

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import UserError

BLOCK = 64  # weights that share a scale
BYTES = 0.5 + 4 / BLOCK  # a weight


def has_four_bit() -> bool:
    """Whether bitsandbytes is installed."""
    return find_spec("bitsandbytes") is not None


def check_four_bit() -> None:
    """A UserError where it is not."""
    if not has_four_bit():
        raise UserError("--four-bit needs bitsandbytes, which is not installed: pip install bitsandbytes.")


class FourBitLinear(nn.Linear):
    """A frozen linear layer: weight uint8 [out * in / 2, 1], two to a byte; scale [out * in / 64]; bias."""

    scale: Tensor

    def __init__(self, linear: nn.Linear):
        from bitsandbytes.functional import quantize_4bit

        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight, state = quantize_4bit(linear.weight.detach().contiguous(), blocksize=BLOCK, quant_type="nf4")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", state.absmax)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        shape = (self.out_features, self.in_features)
        out = FrozenProduct.apply(input.flatten(0, -2), self.weight, self.scale, self.bias, shape)
        return out.view(*input.shape[:-1], -1)


class FrozenProduct(torch.autograd.Function):
    """tokens [n, in] times the transpose of a packed weight of shape (out, in), which is never trained."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, shape: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.shape = shape
        return F.linear(tokens, widened(weight, scale, shape, tokens.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        weight, scale = ctx.saved_tensors
        return gradients[0] @ widened(weight, scale, ctx.shape, gradients[0].dtype), None, None, None, None


def widened(weight: Tensor, scale: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The weights [out, in] that the packed ones stand for."""
    return torch.ops.bitsandbytes.dequantize_4bit(weight, scale, BLOCK, "nf4", shape, dtype)

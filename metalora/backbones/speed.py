"""What makes the frozen transformer faster or smaller without changing what it is: each can be had alone.

Swapped blocks leave the result as it is, compiling and the attention kernel up to rounding; weights in 8 or 4 bits do
not quite. Checkpointing computes blocks a second time in backward to save memory: full checkpointing keeps each block's
input, a third of the matrix products more; selective checkpointing keeps the outputs of the base's products and of
attention as well, and recomputes only what is cheap: norms, gates, activations, the adapters.

Through weights in 8 or 4 bits only the input's gradient is needed. 8 bits: int8 weights with a scale for each output
channel. The gradient contracts over the output channels, where the scales are: they are multiplied into the incoming
gradient before it is rounded, and one int8 matrix serves both directions. Rounding on the way: weights once; with 8-bit
products also each token's activations and gradients, to 127 steps of its own largest number (LLM.int8(), Dettmers et
al. 2022, without its outlier columns).

4 bits: NF4 weights in blocks of 64 (QLoRA, arXiv 2305.14314), through bitsandbytes' kernels, widened while a layer
computes, in forward and again in backward, which keeps the packed ones alone. The scales stay in float32: half a bit a
weight.

Not diffusers' quantization configs: those of bitsandbytes, 8 bits and 4, refuse to be made where there is no GPU
(diffusers 0.42), where all that holds here is tested; quanto's is deprecated there; torchao's was not tried.
"""

import re
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from ..config import UserError
from .architecture import HEAD
from .block_swapping import lists_of

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
OPERATIONS = re.sub(r"\W", "_", __name__)  # torch's names for operations; inside ComfyUI the package has another one
SMALLEST = 1e-12  # of a row's largest number: a row of zeros must not divide by zero
LEAST_TOKENS = 17  # what int8 products on CUDA take; for the few tokens of a modulation 8 bits spare nothing
BLOCK = 64  # weights that share a scale
FOUR_BIT_BYTES = 0.5 + 4 / BLOCK  # a weight


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


def quantize(network: Any, weights: str) -> None:
    """Replace every linear layer of a diffusers transformer's blocks by one of int8 or nf4; the embeddings stay."""
    kind = {"int8": EightBitLinear, "nf4": FourBitLinear}[weights]
    for block in chain.from_iterable(lists_of(network)):
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                block.set_submodule(name, kind(module))


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


class EightBitLinear(nn.Linear):
    """A frozen linear layer: weight int8 [out, in], scale [out], bias."""

    scale: Tensor

    def __init__(self, linear: nn.Linear):
        weight, scale = rounded(linear.weight.detach().float())
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale[:, 0])
        self.bias = linear.bias
        self.eight_bit_products: bool | None = None  # None: on CUDA alone

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        tokens = input.flatten(0, -2)
        wanted = tokens.is_cuda if self.eight_bit_products is None else self.eight_bit_products
        in_eight_bits = wanted and len(tokens) >= LEAST_TOKENS
        out = (eight_bit_product if in_eight_bits else FrozenProduct.apply)(tokens, self.weight, self.scale)
        return (out if self.bias is None else out + self.bias).view(*input.shape[:-1], -1)


class FrozenProduct(torch.autograd.Function):
    """tokens [n, in] times the transpose of scale * weight, for a weight [out, in] that is never trained."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(tokens, weight.to(tokens.dtype)) * scale.to(tokens.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        gradient = gradients[0] * scale.to(gradients[0].dtype)
        return gradient @ weight.to(gradient.dtype), None, None


# The same with products of int8: operations of their own, which a compiler calls and does not look into. What torch
# 2.11 made of them as an autograd function, compiled, gave zeros as gradients.
@torch.library.custom_op(f"{OPERATIONS}::eight_bit_product", mutates_args=())
def eight_bit_product(tokens: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """tokens [n, in] -> [n, out]."""
    return (product(tokens, weight.t()) * scale).to(tokens.dtype)


@torch.library.custom_op(f"{OPERATIONS}::eight_bit_gradient", mutates_args=())
def eight_bit_gradient(gradient: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """[n, out] -> [n, in]."""
    return product(gradient * scale.to(gradient.dtype), weight).to(gradient.dtype)


@eight_bit_product.register_fake
def _(tokens: Tensor, weight: Tensor, _scale: Tensor) -> Tensor:
    return tokens.new_empty(tokens.shape[0], weight.shape[0])


@eight_bit_gradient.register_fake
def _(gradient: Tensor, weight: Tensor, _scale: Tensor) -> Tensor:
    return gradient.new_empty(gradient.shape[0], weight.shape[1])


def _keep_weight(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _to_tokens(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return eight_bit_gradient(gradient, *ctx.saved_tensors), None, None


eight_bit_product.register_autograd(_to_tokens, setup_context=_keep_weight)
EIGHT_BIT_PRODUCT = getattr(torch.ops, OPERATIONS).eight_bit_product.default  # as a checkpoint's policy meets it


def product(tokens: Tensor, weight: Tensor) -> Tensor:
    """tokens [n, k], rounded row by row, times int8 weight [k, m], in float32."""
    numbers, scale = rounded(tokens.float())
    return torch._int_mm(numbers, weight).float() * scale


def rounded(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """int8 numbers [n, k] and scales [n, 1], float32, whose product is the matrix up to rounding."""
    scale = matrix.abs().amax(dim=1, keepdim=True).clamp_min(SMALLEST) / 127
    return (matrix / scale).round().to(torch.int8), scale


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
        out = WidenedProduct.apply(input.flatten(0, -2), self.weight, self.scale, self.bias, shape)
        return out.view(*input.shape[:-1], -1)


class WidenedProduct(torch.autograd.Function):
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

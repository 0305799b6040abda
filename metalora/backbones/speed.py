"""What makes the frozen transformer faster or smaller without changing what it is: each can be had alone.

Swapped blocks leave the result as it is, compiling and the attention kernel up to rounding; weights in 8 or 4 bits do
not quite. Checkpointing computes blocks a second time in backward to save memory: full checkpointing keeps each block's
input, a third of the matrix products more; selective checkpointing keeps the outputs of the base's products and of
attention as well, and recomputes only what is cheap: norms, gates, activations, the adapters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from ..config import SpeedConfig, UserError
from .architecture import HEAD
from .block_swapping import lists_of, swap_blocks
from .quantized import EIGHT_BIT_PRODUCT, EightBitLinear, FourBitLinear, check_four_bit

# diffusers' names, from the fastest where each is at home; "auto" is torch's own choice.
ATTENTION = ("auto", "cudnn", "flash-3", "flash", "efficient", "math")
ON_CUDA_ALONE = ("cudnn", "flash-3", "efficient")
_DIFFUSERS = {
    "auto": "native",
    "cudnn": "_native_cudnn",
    "flash-3": "_flash_3",
    "flash": "_native_flash",
    "efficient": "_native_efficient",
    "math": "_native_math",
}
# How often blocks may be traced: each kind, its first one, with and without gradients, for each shape of adapters.
TRACES = 64


@dataclass(frozen=True)
class Speed:
    """How a transformer is run."""

    compiled: bool = False
    attention: str = "auto"
    eight_bit: bool = False
    four_bit: bool = False
    swapped_blocks: int = 0  # how many are not on the device to stay

    def __post_init__(self) -> None:
        if self.attention not in ATTENTION:
            raise UserError(f"There is no attention called {self.attention!r}; choose one of: {', '.join(ATTENTION)}.")
        if self.eight_bit and self.four_bit:
            raise UserError("--eight-bit and --four-bit are two ways to keep the same weights: leave one out.")
        if self.compiled and self.swapped_blocks:
            raise UserError(
                "--compile and --swap-blocks do not go together: a compiled block would have to fetch its weights "
                "inside its graph. Leave one out."
            )

    def check(self, device: torch.device) -> None:
        """A UserError for what this device cannot do, or what is not installed."""
        if self.four_bit:
            check_four_bit()
        if self.attention in ON_CUDA_ALONE and device.type != "cuda":
            raise UserError(
                f"--attention {self.attention} needs an NVIDIA GPU, and the base runs on {device}. Leave it out."
            )

    @property
    def weights(self) -> str | None:
        """The numbers that the blocks' weights are kept in; None: the backbone's own."""
        return "int8" if self.eight_bit else "nf4" if self.four_bit else None

    def __str__(self) -> str:
        parts = [f"attention {self.attention}"]
        parts += ["compiled blocks"] if self.compiled else []
        parts += ["8-bit weights"] if self.eight_bit else []
        parts += ["4-bit weights"] if self.four_bit else []
        parts += [f"{self.swapped_blocks} blocks swapped"] if self.swapped_blocks else []
        return ", ".join(parts)


AS_IT_IS = Speed()


def speed_of(how: SpeedConfig) -> Speed:
    """What the settings say."""
    return Speed(how.compile, how.attention, how.eight_bit, how.four_bit, how.swap_blocks)


def choose_device(name: str) -> torch.device:
    """auto: the first CUDA device, Apple's GPU, or the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # the meta device makes tensors, but holds no numbers
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name} cannot be used here: {str(error).splitlines()[0]}. Try --device cpu."
        ) from error
    return device


def prepare(network: Any, speed: Speed) -> Any:
    """The same network, to be run in this way."""
    if speed.eight_bit or speed.four_bit:
        quantize(network, EightBitLinear if speed.eight_bit else FourBitLinear)
    if speed.attention != "auto":
        set_attention(network, speed.attention)
    if speed.compiled:
        compile_blocks(network)
    return network


def compile_blocks(network: Any) -> None:
    """One graph for all blocks of a kind and for every aspect ratio: a number of tokens that is only a name."""
    dynamo = torch._dynamo.config
    dynamo.cache_size_limit = max(dynamo.cache_size_limit, TRACES)
    for block in chain.from_iterable(lists_of(network)):  # diffusers' own loop knows no blocks of Stable Diffusion 3.5
        block.compile(fullgraph=True, dynamic=True)


def place(network: Any, speed: Speed, device: torch.device) -> Any:
    """The same network on the device, all but the blocks that are swapped."""
    if speed.swapped_blocks:
        swap_blocks(network, speed.swapped_blocks, device)
        return network
    return network.to(device)


def quantize(network: Any, kind: Callable[[nn.Linear], nn.Linear]) -> None:
    """Replace every linear layer of a diffusers transformer's blocks, one after another; the embeddings stay."""
    for block in chain.from_iterable(lists_of(network)):
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                block.set_submodule(name, kind(module))


def set_attention(network: Any, name: str) -> None:
    """One of ATTENTION; a UserError where it is not to be had."""
    try:
        network.set_attention_backend(_DIFFUSERS[name])
    except (RuntimeError, ImportError) as error:
        raise UserError(f"Attention {name!r} cannot be used here: {error}. Use auto.") from error


def attention_that_runs(speed: Speed, device: torch.device, dtype: torch.dtype) -> str:
    """The kernel's name: what was asked for, or what torch chooses for FLUX's heads where that was "auto"."""
    if speed.attention != "auto":
        return speed.attention
    heads = torch.empty(1, 1, 64, HEAD, device=device, dtype=dtype)
    return SDPBackend(torch._fused_sdp_choice(heads, heads, heads)).name.lower()


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

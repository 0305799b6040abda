"""What makes the frozen transformer faster or smaller without changing what it is: each can be had alone.

Compiling and the attention kernel leave the result as it is, up to rounding; 8-bit weights do not quite.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend

from ..config import UserError
from .eight_bit import quantize
from .keys import HEAD

# diffusers' names, from the fastest where each is at home; "auto" is torch's own choice.
ATTENTION = ("auto", "cudnn", "flash-3", "flash", "efficient", "math")
_DIFFUSERS = {
    "auto": "native",
    "cudnn": "_native_cudnn",
    "flash-3": "_flash_3",
    "flash": "_native_flash",
    "efficient": "_native_efficient",
    "math": "_native_math",
}


@dataclass(frozen=True)
class Speed:
    """How a transformer is run."""

    compiled: bool = False
    attention: str = "auto"
    eight_bit: bool = False

    def __post_init__(self) -> None:
        if self.attention not in ATTENTION:
            raise UserError(f"There is no attention called {self.attention!r}; choose one of: {', '.join(ATTENTION)}.")

    def __str__(self) -> str:
        parts = [f"attention {self.attention}"]
        parts += ["compiled blocks"] if self.compiled else []
        parts += ["8-bit weights"] if self.eight_bit else []
        return ", ".join(parts)


AS_IT_IS = Speed()


def prepare(network: Any, speed: Speed) -> Any:
    """The same network, to be run in this way."""
    if speed.eight_bit:
        quantize(network)
    if speed.attention != "auto":
        set_attention(network, speed.attention)
    if speed.compiled:
        # One graph for all blocks of a kind and for every aspect ratio: a number of tokens that is only a name.
        network.compile_repeated_blocks(fullgraph=True, dynamic=True)
    return network


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

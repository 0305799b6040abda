"""What a training step will need, from arithmetic alone: known before 24 GB are loaded.

The activations a block keeps for backward were counted with saved-tensor hooks on diffusers' FLUX blocks, in units of
tokens x width numbers; they hardly depend on either. A frozen Meta-Down spares each layer its input, so Meta-LoRA
keeps less than a plain LoRA. `tests/test_saved_activations.py` counts again, and `tests/test_memory_measured.py`
compares the sum with the peak of a step.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..method.adapter import Site
from .block_swapping import BUFFERS
from .checkpointing import Checkpointing
from .four_bit import BYTES as FOUR_BIT_BYTES
from .keys import FluxShape

KEPT = {  # (double block, single block)
    "meta-lora": (18.9, 15.6),
    "plain": (24.2, 21.1),
}
KEPT_WHEN_CHECKPOINTED = 1.1  # a block's input alone
KEPT_WHEN_SELECTIVE = (11.1, 10.1)  # that and the outputs of the base's products and of attention
IN_HAND = 13.0  # gradients that backward holds in the block it is in
TEXT_TOKENS = 512
RESERVE = 1.5e9  # the driver's context, the allocator's slack, workspaces
DOUBLE, SINGLE = 36, 15  # weights of a block, in units of width^2
WIDEST = 5  # of the largest layer, which 4-bit weights are widened to while it computes


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on the device while training."""

    weights: int  # with the buffers for swapped blocks
    activations: int
    adapters: int  # weights, gradients and AdamW's two moments, float32

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.adapters


def training_memory(
    shape: FluxShape,
    sites: Iterable[Site],
    *,
    size: tuple[int, int],
    batch: int,
    rank: int,
    meta_rank: int | None,
    bytes_per_number: int,
    checkpointing: int,
    text_tokens: int = TEXT_TOKENS,
    eight_bit: bool = False,
    four_bit: bool = False,
    swapped_blocks: int = 0,
) -> TrainingMemory:
    """For images of size (width, height) pixels; `meta_rank` None is a plain LoRA."""
    tokens = batch * tokens_of(size, text_tokens)
    kept = activation_numbers(shape, tokens, meta=meta_rank is not None, checkpointing=checkpointing)
    kept += WIDEST * shape.width**2 if four_bit else 0
    trained, frozen = adapter_numbers(list(sites), rank, meta_rank)
    return TrainingMemory(
        weights=int(resident_parameters(shape, swapped_blocks) * weight_bytes(bytes_per_number, eight_bit, four_bit)),
        activations=int(kept * bytes_per_number),
        adapters=4 * (4 * trained + frozen),
    )


def activation_numbers(shape: FluxShape, tokens: int, *, meta: bool, checkpointing: int) -> float:
    """Numbers at the worst moment. Checkpointing keeps a part of every block, and one whole block at a time."""
    double, single = KEPT["meta-lora" if meta else "plain"]
    unit = tokens * shape.width
    whole = 0.0
    if checkpointing != Checkpointing.NONE:
        whole = max(double, single)
        double = single = KEPT_WHEN_CHECKPOINTED
        if checkpointing == Checkpointing.SELECTIVE:
            double, single = KEPT_WHEN_SELECTIVE
    return unit * (double * shape.double_blocks + single * shape.single_blocks + whole + IN_HAND)


def adapter_numbers(sites: list[Site], rank: int, meta_rank: int | None) -> tuple[int, int]:
    """(trained, frozen) numbers of the adapters."""
    ups = sum(rank * site.out_features for site in sites)
    inputs = sum(site.in_features for site in sites)
    if meta_rank is None:
        return ups + rank * inputs, 0
    return ups + rank * meta_rank * len(sites), meta_rank * inputs


def sampling_memory(
    shape: FluxShape,
    *,
    size: tuple[int, int],
    bytes_per_number: int,
    text_tokens: int = TEXT_TOKENS,
    eight_bit: bool = False,
    four_bit: bool = False,
    swapped_blocks: int = 0,
) -> TrainingMemory:
    """For making one image: nothing is kept, and what one block would keep bounds what it has in hand."""
    numbers = max(KEPT["plain"]) * tokens_of(size, text_tokens) * shape.width
    numbers += WIDEST * shape.width**2 if four_bit else 0
    resident = resident_parameters(shape, swapped_blocks) * weight_bytes(bytes_per_number, eight_bit, four_bit)
    return TrainingMemory(int(resident), int(numbers * bytes_per_number), 0)


def tokens_of(size: tuple[int, int], text_tokens: int) -> int:
    """Of one image of size (width, height) pixels and its prompt."""
    return size[0] // 16 * (size[1] // 16) + text_tokens


def parameter_count(shape: FluxShape) -> int:
    """Of the blocks, which are nearly all of the transformer."""
    return (shape.double_blocks * DOUBLE + shape.single_blocks * SINGLE) * shape.width**2


def swapped_parameters(shape: FluxShape, count: int) -> int:
    """Of so many swapped blocks, in main memory: the single ones are swapped first."""
    singles = min(count, shape.single_blocks)
    return ((count - singles) * DOUBLE + singles * SINGLE) * shape.width**2


def resident_parameters(shape: FluxShape, swapped_blocks: int) -> int:
    """On the device, with the buffers that swapped blocks take turns in."""
    largest = DOUBLE if swapped_blocks > shape.single_blocks else SINGLE
    buffers = BUFFERS * largest * shape.width**2 if swapped_blocks else 0
    return parameter_count(shape) - swapped_parameters(shape, swapped_blocks) + buffers


def weight_bytes(bytes_per_number: int, eight_bit: bool, four_bit: bool) -> float:
    """Of one weight of the blocks, with its share of the scales."""
    return 1 if eight_bit else FOUR_BIT_BYTES if four_bit else bytes_per_number

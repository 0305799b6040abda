"""What a training step will need, from arithmetic alone: known before 24 GB are loaded.

A block is known by its linear layers, the sites. What it keeps for backward is a share of what they read and write,
which was counted with saved-tensor hooks on diffusers' FLUX blocks and hardly depends on their sizes. A frozen
Meta-Down spares each layer its input, so Meta-LoRA keeps less than a plain LoRA. `tests/test_saved_activations.py`
counts again, and `tests/test_memory_measured.py` compares the sum with the peak of a step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from ..method.adapter import Site
from .architecture import TEXT_STREAM, VECTOR, Architecture
from .block_swapping import BUFFERS
from .four_bit import BYTES as FOUR_BIT_BYTES
from .speed import Checkpointing

KEPT = {"meta-lora": 1.139, "plain": 1.509}  # times what a block's layers read and write: FLUX's two kinds within 4%
KEPT_WHEN_CHECKPOINTED = 1.1  # widths: a block's input alone
IN_HAND = 13.0  # widths: gradients that backward holds in the block it is in
TEXT_TOKENS = 512
RESERVE = 1.5e9  # the driver's context, the allocator's slack, workspaces


@dataclass(frozen=True)
class BlockSize:
    """What arithmetic needs of a block; reads, writes and products are one token's, in the one stream that it is in."""

    parameters: int
    products: int
    reads: int
    writes: int
    width: int
    widest: int  # numbers of the largest of these layers

    def kept(self, *, meta: bool, checkpointing: int) -> float:
        """Numbers a token that the block keeps for backward."""
        if checkpointing == Checkpointing.NONE:
            return KEPT["meta-lora" if meta else "plain"] * (self.reads + self.writes)
        chosen = (
            self.writes + self.width if checkpointing == Checkpointing.SELECTIVE else 0
        )  # base's products, attention
        return KEPT_WHEN_CHECKPOINTED * self.width + chosen


@cache
def block_sizes(architecture: Architecture) -> list[BlockSize]:
    """Of every block in order. Layers of modulation read one vector and not the tokens."""
    return [block_size(sites) for sites in architecture.blocks.values()]


def block_size(sites: list[Site]) -> BlockSize:
    """Of a block with these layers."""
    tokenwise = [site for site in sites if not VECTOR.search(site.name)] or sites
    stream = [site for site in tokenwise if not TEXT_STREAM.search(site.name)] or tokenwise
    # Layers side by side share their input: q, k and v, and with them the MLP of a parallel block.
    inputs = {(site.name.rpartition(".")[0].removesuffix(".attn"), site.in_features) for site in stream}
    return BlockSize(
        parameters=sum(site.in_features * site.out_features for site in sites),
        products=sum(site.in_features * site.out_features for site in stream),
        reads=sum(numbers for _, numbers in inputs),
        writes=sum(site.out_features for site in stream),
        width=min(site.in_features for site in stream),
        widest=max(site.in_features * site.out_features for site in tokenwise),
    )


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
    architecture: Architecture,
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
    kept = activation_numbers(architecture, tokens, meta=meta_rank is not None, checkpointing=checkpointing)
    kept += widest(architecture) if four_bit else 0
    trained, frozen = adapter_numbers(list(sites), rank, meta_rank)
    return TrainingMemory(
        weights=int(
            resident_parameters(architecture, swapped_blocks) * weight_bytes(bytes_per_number, eight_bit, four_bit)
        ),
        activations=int(kept * bytes_per_number),
        adapters=4 * (4 * trained + frozen),
    )


def activation_numbers(architecture: Architecture, tokens: int, *, meta: bool, checkpointing: int) -> float:
    """Numbers at the worst moment. Checkpointing keeps a part of every block, and one whole block at a time."""
    blocks = block_sizes(architecture)
    kept = sum(block.kept(meta=meta, checkpointing=checkpointing) for block in blocks)
    if checkpointing != Checkpointing.NONE:
        kept += max(block.kept(meta=meta, checkpointing=Checkpointing.NONE) for block in blocks)
    return tokens * (kept + IN_HAND * max(block.width for block in blocks))


def adapter_numbers(sites: list[Site], rank: int, meta_rank: int | None) -> tuple[int, int]:
    """(trained, frozen) numbers of the adapters."""
    ups = sum(rank * site.out_features for site in sites)
    inputs = sum(site.in_features for site in sites)
    if meta_rank is None:
        return ups + rank * inputs, 0
    return ups + rank * meta_rank * len(sites), meta_rank * inputs


def sampling_memory(
    architecture: Architecture,
    *,
    size: tuple[int, int],
    bytes_per_number: int,
    text_tokens: int = TEXT_TOKENS,
    eight_bit: bool = False,
    four_bit: bool = False,
    swapped_blocks: int = 0,
) -> TrainingMemory:
    """For making one image: nothing is kept, and what one block would keep bounds what it has in hand."""
    whole = max(block.kept(meta=False, checkpointing=Checkpointing.NONE) for block in block_sizes(architecture))
    numbers = whole * tokens_of(size, text_tokens)
    numbers += widest(architecture) if four_bit else 0
    resident = resident_parameters(architecture, swapped_blocks) * weight_bytes(bytes_per_number, eight_bit, four_bit)
    return TrainingMemory(int(resident), int(numbers * bytes_per_number), 0)


def tokens_of(size: tuple[int, int], text_tokens: int) -> int:
    """Of one image of size (width, height) pixels and its prompt."""
    return size[0] // 16 * (size[1] // 16) + text_tokens


def parameter_count(architecture: Architecture) -> int:
    """Of the blocks, which are nearly all of the transformer."""
    return sum(block.parameters for block in block_sizes(architecture))


def widest(architecture: Architecture) -> int:
    """Numbers of the largest layer, which 4-bit weights are widened to while it computes."""
    return max(block.widest for block in block_sizes(architecture))


def swapped_parameters(architecture: Architecture, count: int) -> int:
    """Of so many swapped blocks, in main memory: the last ones are swapped first."""
    return sum(block.parameters for block in block_sizes(architecture)[-count:]) if count else 0


def resident_parameters(architecture: Architecture, swapped_blocks: int) -> int:
    """On the device, with the buffers that swapped blocks take turns in."""
    swapped = block_sizes(architecture)[-swapped_blocks:] if swapped_blocks else []
    buffers = BUFFERS * max((block.parameters for block in swapped), default=0)
    return parameter_count(architecture) - swapped_parameters(architecture, swapped_blocks) + buffers


def weight_bytes(bytes_per_number: int, eight_bit: bool, four_bit: bool) -> float:
    """Of one weight of the blocks, with its share of the scales."""
    return 1 if eight_bit else FOUR_BIT_BYTES if four_bit else bytes_per_number

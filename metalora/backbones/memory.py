"""What a training step will need, from arithmetic alone: known before 24 GB are loaded.

A block is known by its linear layers, the sites. What it keeps for backward is a share of what they read and write,
which hardly depends on their sizes, but on the family: FLUX.1's was counted with saved-tensor hooks, the others' solved
from the peaks of two steps, without checkpoints and with full ones. A frozen Meta-Down spares each layer its input, so
Meta-LoRA keeps less than a plain LoRA. `tests/test_saved_activations.py` counts again, and
`tests/test_memory_measured.py` compares the sum with the peak of a step of every family.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from ..method.adapter import Site
from .architecture import TEXT_STREAM, VECTOR, Architecture
from .block_swapping import BUFFERS
from .four_bit import BYTES as FOUR_BIT_BYTES
from .speed import Checkpointing

# Of each family: times what a block's layers read and write that it keeps with a frozen Meta-Down, and in widths what
# backward holds in the block it is in. Z-Image keeps much in float32: norms, rotary embedding.
KEPT = {
    "flux": (1.139, 13.0),
    "flux.2": (1.329, 16.0),
    "z-image": (2.169, 9.3),
    "qwen-image": (1.353, 7.0),
    "krea": (1.256, 14.8),
    "sd3": (1.413, 2.7),
}
PLAIN = 0.37  # what a plain LoRA keeps more of it: each layer's input
KEPT_WHEN_CHECKPOINTED = 1.1  # widths: a block's input alone
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

    def kept(self, share: float, checkpointing: int) -> float:
        """Numbers a token that it keeps for backward; without checkpoints a `share` of what it reads and writes."""
        if checkpointing == Checkpointing.NONE:
            return share * (self.reads + self.writes)
        selective = checkpointing == Checkpointing.SELECTIVE
        return KEPT_WHEN_CHECKPOINTED * self.width + (self.chosen if selective else 0)

    @property
    def chosen(self) -> int:
        """Numbers a token that selective checkpoints keep: the outputs of the base's products, and of attention."""
        return self.writes + self.width


def shares(architecture: Architecture, meta: bool) -> tuple[float, float]:
    """Its family's in KEPT, by the longest name that fits; of another family FLUX.1's, which may be far off."""
    found = max((name for name in KEPT if architecture.name.startswith(name)), key=len, default="flux")
    share, in_hand = KEPT[found]
    return share + (0 if meta else PLAIN), in_hand


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


def image_blocks(architecture: Architecture) -> list[BlockSize]:
    """Those that the image's tokens go through: Z-Image has two for the few of the prompt alone."""
    named = zip(architecture.blocks, block_sizes(architecture), strict=True)
    return [block for name, block in named if "context_refiner" not in name]


def activation_numbers(architecture: Architecture, tokens: int, *, meta: bool, checkpointing: int) -> float:
    """Numbers at the worst moment. Checkpointing keeps a part of every block, and all of the one that is computed."""
    blocks, (share, in_hand) = image_blocks(architecture), shares(architecture, meta)
    kept = sum(block.kept(share, checkpointing) for block in blocks)
    if checkpointing != Checkpointing.NONE:
        kept += max(block.kept(share, Checkpointing.NONE) for block in blocks)
    if checkpointing == Checkpointing.SELECTIVE:
        kept -= max(block.chosen for block in blocks)  # of that block it is there already
    return tokens * (kept + in_hand * max(block.width for block in blocks))


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
    share, _ = shares(architecture, meta=False)
    whole = max(block.kept(share, Checkpointing.NONE) for block in block_sizes(architecture))
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

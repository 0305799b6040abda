"""Which way to keep and to run a base is the fastest that fits, by arithmetic: nothing of it was measured.

A step's seconds are computed for one assumed card, for their order alone: products at its rate, what must be widened or
computed again at its memory's, copies of swapped blocks at its link's. Copies go on beside the products, so that the
longer of the two counts. 8-bit products are counted as no faster than those of bf16.

What changes the base's numbers less may cost a little more time: int8 is taken before NF4, and the base as it is before
both, while a step then takes at most `PATIENCE` times the fastest.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .architecture import Architecture
from .block_swapping import BUFFERS
from .four_bit import BYTES as FOUR_BIT_BYTES
from .memory import block_sizes, parameter_count, shares, swapped_parameters, weight_bytes
from .speed import Checkpointing

PRODUCTS = 165e12  # operations a second in bf16: a GeForce RTX 4090 by its data sheet
MEMORY = 1.0e12  # bytes a second: the same
LINK = 12e9  # bytes a second from main memory: PCI Express 4.0 with 8 lanes, or 3.0 with 16, less its overhead
PATIENCE = 1.25
RECOMPUTED = (Checkpointing.NONE, Checkpointing.SELECTIVE, Checkpointing.FULL)  # from the least to the most


@dataclass(frozen=True)
class Way:
    """One way to keep the weights and to train through them."""

    checkpointing: Checkpointing = Checkpointing.NONE
    eight_bit: bool = False
    four_bit: bool = False
    swapped_blocks: int = 0


def ways(
    architecture: Architecture, checkpointing: tuple[Checkpointing, ...], swapping: bool, four_bit: bool
) -> Iterator[Way]:
    """All of them, the least change to the base first."""
    blocks = len(architecture.blocks)
    counts = (0, *range(BUFFERS + 1, blocks + 1)) if swapping else (0,)
    for eight, four in ((False, False), (True, False), *([(False, True)] if four_bit else [])):
        for how in RECOMPUTED:
            if how in checkpointing:
                yield from (Way(how, eight, four, count) for count in counts)


def fastest(
    candidates: Iterable[Way], need: Callable[[Way], float], seconds: Callable[[Way], float], room: float
) -> Way | None:
    """Of those that need no more bytes than there is room for, in the order of `ways`; None if none does."""
    times = {way: seconds(way) for way in candidates if need(way) <= room}
    if not times:
        return None
    patience = PATIENCE * min(times.values())
    exact = next(way for way, time in times.items() if time <= patience)
    alike = [way for way in times if (way.eight_bit, way.four_bit) == (exact.eight_bit, exact.four_bit)]
    return min(alike, key=lambda way: round(times[way], 3))  # of equally fast ones the first: it does the least


def step_seconds(architecture: Architecture, way: Way, tokens: int, batch: int, bytes_per_number: int) -> float:
    """Of one training step with so many tokens an image, on the assumed card."""
    full = way.checkpointing == Checkpointing.FULL
    linear, attention = operations(architecture, tokens, batch)
    products = (3 * linear + 4.5 * attention) if full else (2 * linear + 3.5 * attention)
    passes = 2 if way.checkpointing == Checkpointing.NONE else 3
    moved = passes * widened_bytes(architecture, way, bytes_per_number)
    if way.checkpointing == Checkpointing.SELECTIVE:
        moved += 2 * recomputed_numbers(architecture, tokens * batch) * bytes_per_number
    return max(products / PRODUCTS + moved / MEMORY, 2 * copied_bytes(architecture, way, bytes_per_number) / LINK)


def image_seconds(architecture: Architecture, way: Way, tokens: int, bytes_per_number: int) -> float:
    """Of one sampling step, on the same card."""
    moved = widened_bytes(architecture, way, bytes_per_number)
    computed = sum(operations(architecture, tokens, 1)) / PRODUCTS + moved / MEMORY
    return max(computed, copied_bytes(architecture, way, bytes_per_number) / LINK)


def operations(architecture: Architecture, tokens: int, batch: int) -> tuple[float, float]:
    """Of a forward pass: the linear layers', and attention's."""
    blocks = block_sizes(architecture)
    linear = 2.0 * sum(block.products for block in blocks)
    return linear * tokens * batch, 4.0 * tokens**2 * sum(block.width for block in blocks) * batch


def recomputed_numbers(architecture: Architecture, tokens: int) -> float:
    """What selective checkpoints compute again: all that they do not keep."""
    share, _ = shares(architecture, meta=True)
    none, some = (
        sum(block.kept(share, how) for block in block_sizes(architecture))
        for how in (Checkpointing.NONE, Checkpointing.SELECTIVE)
    )
    return tokens * (none - some)


def widened_bytes(architecture: Architecture, way: Way, bytes_per_number: int) -> float:
    """Read packed, written and read again wide: 4-bit weights in each pass over the blocks."""
    return parameter_count(architecture) * (FOUR_BIT_BYTES + 2 * bytes_per_number) if way.four_bit else 0.0


def copied_bytes(architecture: Architecture, way: Way, bytes_per_number: int) -> float:
    """Of the swapped blocks, which each pass over them copies once; they lie in main memory."""
    return swapped_parameters(architecture, way.swapped_blocks) * weight_bytes(
        bytes_per_number, way.eight_bit, way.four_bit
    )

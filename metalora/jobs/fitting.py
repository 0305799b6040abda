"""The fastest way that fits a card, for a personalization and for images, by arithmetic: nothing of it was measured.

A step's seconds are computed for one assumed card, for their order alone: products at its rate, what must be widened or
computed again at its memory's, copies of swapped blocks at its link's. Copies go on beside the products, so that the
longer of the two counts. 8-bit products are counted as no faster than those of bf16.

What changes the base's numbers less may cost a little more time: int8 is taken before NF4, and the base as it is before
both, while a step then takes at most `PATIENCE` times the fastest.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch

from ..backbones.architecture import Architecture
from ..backbones.block_swapping import BUFFERS
from ..backbones.pipeline import AS_IT_IS, PipelineBackbone, Speed
from ..backbones.speed import FOUR_BIT_BYTES, Checkpointing, has_four_bit
from ..config import CropConfig, GenerateConfig, PersonalizeConfig, UserError
from ..method.crops import training_size
from .memory import (
    RESERVE,
    TrainingMemory,
    block_sizes,
    cap_memory,
    estimate,
    free_memory,
    parameter_count,
    reserve,
    resident_bytes,
    room,
    sampling_memory,
    shares,
    swapped_parameters,
    tokens_of,
    weight_bytes,
)

CARDS, RESOLUTIONS = (12, 16, 24, 32, 48, 80), (512, 1024)  # GB, pixels: what the table shows
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
PRODUCTS = 165e12  # operations a second in bf16: a GeForce RTX 4090 by its data sheet
MEMORY = 1.0e12  # bytes a second: the same
LINK = 12e9  # bytes a second from main memory: PCI Express 4.0 with 8 lanes, or 3.0 with 16, less its overhead
PATIENCE = 1.25
RECOMPUTED = (Checkpointing.NONE, Checkpointing.SELECTIVE, Checkpointing.FULL)  # from the least to the most


@dataclass(frozen=True)
class Way:
    """One way to keep the weights and to train through them."""

    checkpointing: Checkpointing = Checkpointing.NONE
    speed: Speed = AS_IT_IS


@dataclass(frozen=True)
class Asked:
    """What is to fit: its memory and its time, by the way it is run, and which checkpoints it may have."""

    need: Callable[[Way], TrainingMemory]
    seconds: Callable[[Way], float]
    checkpointing: tuple[Checkpointing, ...]


@dataclass(frozen=True)
class Choice:
    """A way that was chosen, and what it needs."""

    weights: str
    way: Way
    need: TrainingMemory
    in_main_memory: float  # bytes

    def __str__(self) -> str:
        how = self.way.checkpointing
        parts = [self.weights] + ([] if how == Checkpointing.NONE else [f"{how.name.lower()} checkpoints"])
        if self.way.speed.swapped_blocks:
            parts.append(f"{self.way.speed.swapped_blocks} blocks swapped ({self.in_main_memory / 1e9:.1f} GB)")
        return f"{', '.join(parts)}: {self.need.total / 1e9:.1f} GB"


def fit_personalization(
    backbone: PipelineBackbone, config: PersonalizeConfig, crop_config: CropConfig, gigabytes: float = 0
) -> str:
    """Have the backbone run in the fastest way that fits a card of so many GB (0: what is free); what it is."""
    selective = backbone.device.type == "cuda"  # a CPU is slower choosing
    return _fit(backbone, training(backbone, config, crop_config, selective), "--resolution or --batch", gigabytes)


def fit_images(backbone: PipelineBackbone, config: GenerateConfig, gigabytes: float = 0) -> str:
    """The same for making images."""
    return _fit(backbone, sampling(backbone, config), "--width and --height", gigabytes)


def imitate(backbone: PipelineBackbone, gigabytes: float) -> None:
    """A smaller card: no more is used than it would have, and on CUDA no more can be."""
    if not 0 < gigabytes < 1e6:
        raise UserError(f"--fit {gigabytes:g} is no size of a card in GB: say --fit 12, or --fit for what is free.")
    backbone.memory_limit = int(gigabytes * 1e9)
    if backbone.device.type == "cuda":
        cap_memory(backbone.device, backbone.memory_limit)


def training(backbone: PipelineBackbone, config: PersonalizeConfig, crop_config: CropConfig, selective: bool) -> Asked:
    """A personalization, with the checkpoints that the option leaves open."""
    number, architecture = torch.finfo(backbone.dtype).bits // 8, backbone.architecture
    tokens = tokens_of(training_size(1.0, crop_config.resolution, backbone.multiple), backbone.caption_tokens)
    fixed = {"on": (Checkpointing.FULL,), "off": (Checkpointing.NONE,)}.get(config.gradient_checkpointing)
    free = tuple(how for how in RECOMPUTED if selective or how != Checkpointing.SELECTIVE)

    @cache
    def resident(way: Way) -> TrainingMemory:
        return estimate(backbone, config, crop_config, checkpointing=way.checkpointing, speed=way.speed)

    def need(way: Way) -> TrainingMemory:  # all but the weights is the same however many blocks are swapped
        whole = Way(way.checkpointing, replace(way.speed, swapped_blocks=0))
        return replace(resident(whole), weights=int(resident_bytes(architecture, way.speed, number)))

    return Asked(need, lambda way: step_seconds(architecture, way, tokens, config.batch, number), fixed or free)


def sampling(backbone: PipelineBackbone, config: GenerateConfig) -> Asked:
    """An image: there is nothing to compute again."""
    number, architecture = torch.finfo(backbone.dtype).bits // 8, backbone.architecture
    size, text = (config.width, config.height), backbone.caption_tokens

    def need(way: Way) -> TrainingMemory:
        return sampling_memory(architecture, size=size, bytes_per_number=number, text_tokens=text, speed=way.speed)

    def seconds(way: Way) -> float:
        return step_seconds(architecture, way, tokens_of(size, text), 1, number, trained=False)

    return Asked(need, seconds, (Checkpointing.NONE,))


def choose(backbone: PipelineBackbone, asked: Asked, free: float, among: Iterable[Way]) -> Choice | None:
    """The fastest of these that needs no more than is free, in bytes."""
    way = fastest(among, lambda way: asked.need(way).total, asked.seconds, free)
    if way is None:
        return None
    weights = way.speed.weights or NAMES[backbone.dtype]
    copied = copied_bytes(backbone.architecture, way, torch.finfo(backbone.dtype).bits // 8)
    return Choice(weights, way, asked.need(way), copied)


def table(backbone: PipelineBackbone, config: PersonalizeConfig, crop_config: CropConfig) -> list[str]:
    """What would be chosen on cards of several sizes, a line for each; none for a base that fits any card."""
    asked = {
        size: training(backbone, config, replace(crop_config, resolution=size), selective=True) for size in RESOLUTIONS
    }
    if all(each.need(Way()).total + RESERVE <= CARDS[0] * 1e9 for each in asked.values()):
        return []
    lines = ["what --fit would choose for this job, by arithmetic (in brackets what lies in main memory):"]
    for gigabytes in CARDS:
        for size, each in asked.items():
            among = ways(backbone.architecture, each.checkpointing, swapping=True, four_bit=True)
            choice = choose(backbone, each, gigabytes * 1e9 - RESERVE, among)
            lines.append(f"  {gigabytes:3} GB  {size:4} px  {choice or 'does not fit'}")
    return lines


def _fit(backbone: PipelineBackbone, asked: Asked, lower: str, gigabytes: float) -> str:
    if gigabytes:
        imitate(backbone, gigabytes)
    swapping = not backbone.speed.compiled and (backbone.device.type == "cuda" or backbone.memory_limit is not None)
    number, main_memory = torch.finfo(backbone.dtype).bits // 8, free_memory(torch.device("cpu"))
    among = [
        way
        for way in ways(backbone.architecture, asked.checkpointing, swapping, has_four_bit(), backbone.speed)
        if copied_bytes(backbone.architecture, way, number) <= main_memory
    ]
    free = room(backbone)
    choice = choose(backbone, asked, free - reserve(backbone), among)
    if choice is None:
        least = min(asked.need(way).total for way in among) + reserve(backbone)
        raise UserError(
            f"Nothing fits into {free / 1e9:.1f} GB: the smallest way needs about {least / 1e9:.1f} GB. Lower {lower}."
        )
    backbone.speed = choice.way.speed
    plain = asked.need(Way(asked.checkpointing[0])).total
    why = f"by arithmetic about the fastest way that fits into {free / 1e9:.1f} GB"
    return f"--fit: {choice}, {why}; with nothing done for it the job would need {plain / 1e9:.1f} GB"


def ways(
    architecture: Architecture,
    checkpointing: tuple[Checkpointing, ...],
    swapping: bool,
    four_bit: bool,
    speed: Speed = AS_IT_IS,
) -> Iterator[Way]:
    """All of them, the least change to the base first; in all else the base is run as `speed` says."""
    blocks = len(architecture.blocks)
    counts = (0, *range(BUFFERS + 1, blocks + 1)) if swapping else (0,)
    for eight, four in ((False, False), (True, False), *([(False, True)] if four_bit else [])):
        for how in RECOMPUTED:
            if how in checkpointing:
                for count in counts:
                    yield Way(how, replace(speed, eight_bit=eight, four_bit=four, swapped_blocks=count))


def fastest(
    candidates: Iterable[Way], need: Callable[[Way], float], seconds: Callable[[Way], float], room: float
) -> Way | None:
    """Of those that need no more bytes than there is room for, in the order of `ways`; None if none does."""
    times = {way: seconds(way) for way in candidates if need(way) <= room}
    if not times:
        return None
    patience = PATIENCE * min(times.values())
    exact = next(way for way, time in times.items() if time <= patience)
    alike = [way for way in times if way.speed.weights == exact.speed.weights]
    return min(alike, key=lambda way: round(times[way], 3))  # of equally fast ones the first: it does the least


def step_seconds(
    architecture: Architecture, way: Way, tokens: int, batch: int, bytes_per_number: int, trained: bool = True
) -> float:
    """Of one step of training with so many tokens an image, or else of sampling, on the assumed card."""
    linear, attention = operations(architecture, tokens, batch)
    if not trained:
        passes, products = 1, linear + attention
    elif way.checkpointing == Checkpointing.FULL:
        passes, products = 3, 3 * linear + 4.5 * attention
    else:
        passes, products = (2 if way.checkpointing == Checkpointing.NONE else 3), 2 * linear + 3.5 * attention
    moved = 0.0
    if way.speed.four_bit:  # read packed, written and read again wide, in each pass over the blocks
        moved += passes * parameter_count(architecture) * (FOUR_BIT_BYTES + 2 * bytes_per_number)
    if way.checkpointing == Checkpointing.SELECTIVE:  # all that they do not keep is computed again
        share, _ = shares(architecture, meta=True)
        none, some = (
            sum(block.kept(share, how) for block in block_sizes(architecture))
            for how in (Checkpointing.NONE, Checkpointing.SELECTIVE)
        )
        moved += 2 * tokens * batch * (none - some) * bytes_per_number
    copied = (2 if trained else 1) * copied_bytes(architecture, way, bytes_per_number)
    return max(products / PRODUCTS + moved / MEMORY, copied / LINK)


def operations(architecture: Architecture, tokens: int, batch: int) -> tuple[float, float]:
    """Of a forward pass: the linear layers', and attention's."""
    blocks = block_sizes(architecture)
    linear = 2.0 * sum(block.products for block in blocks)
    return linear * tokens * batch, 4.0 * tokens**2 * sum(block.width for block in blocks) * batch


def copied_bytes(architecture: Architecture, way: Way, bytes_per_number: int) -> float:
    """Of the swapped blocks, which each pass over them copies once; they lie in main memory."""
    return swapped_parameters(architecture, way.speed.swapped_blocks) * weight_bytes(way.speed, bytes_per_number)

"""The fastest way that fits a card, for a personalization and for images: what was chosen, and why."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import torch

from ..backbones.fitting import RECOMPUTED, Way, copied_bytes, fastest, image_seconds, step_seconds, ways
from ..backbones.four_bit import has_four_bit
from ..backbones.memory import RESERVE, TrainingMemory, resident_parameters, sampling_memory, tokens_of, weight_bytes
from ..backbones.pipeline import PipelineBackbone
from ..backbones.speed import Checkpointing, Speed
from ..config import CropConfig, GenerateConfig, PersonalizeConfig, UserError
from ..method.crops import training_size
from .memory import cap_memory, estimate, free_memory, reserve, room

CARDS, RESOLUTIONS = (12, 16, 24, 32, 48, 80), (512, 1024)  # GB, pixels: what the table shows
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


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
        if self.way.swapped_blocks:
            parts.append(f"{self.way.swapped_blocks} blocks swapped ({self.in_main_memory / 1e9:.1f} GB)")
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
        return estimate(backbone, config, crop_config, checkpointing=way.checkpointing, speed=speed_of(way))

    def need(way: Way) -> TrainingMemory:  # all but the weights is the same however many blocks are swapped
        numbers = resident_parameters(architecture, way.swapped_blocks)
        weights = int(numbers * weight_bytes(number, way.eight_bit, way.four_bit))
        return replace(resident(replace(way, swapped_blocks=0)), weights=weights)

    return Asked(need, lambda way: step_seconds(architecture, way, tokens, config.batch, number), fixed or free)


def sampling(backbone: PipelineBackbone, config: GenerateConfig) -> Asked:
    """An image: there is nothing to compute again."""
    number, architecture = torch.finfo(backbone.dtype).bits // 8, backbone.architecture
    size = (config.width, config.height)
    tokens = tokens_of(size, backbone.caption_tokens)

    def need(way: Way) -> TrainingMemory:
        return sampling_memory(
            architecture,
            size=size,
            bytes_per_number=number,
            text_tokens=backbone.caption_tokens,
            eight_bit=way.eight_bit,
            four_bit=way.four_bit,
            swapped_blocks=way.swapped_blocks,
        )

    return Asked(need, lambda way: image_seconds(architecture, way, tokens, number), (Checkpointing.NONE,))


def choose(backbone: PipelineBackbone, asked: Asked, free: float, among: Iterable[Way]) -> Choice | None:
    """The fastest of these that needs no more than is free, in bytes."""
    way = fastest(among, lambda way: asked.need(way).total, asked.seconds, free)
    if way is None:
        return None
    weights = "int8" if way.eight_bit else "nf4" if way.four_bit else NAMES[backbone.dtype]
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


def speed_of(way: Way, speed: Speed | None = None) -> Speed:
    """The speed with the way's weights and swapped blocks."""
    return replace(speed or Speed(), eight_bit=way.eight_bit, four_bit=way.four_bit, swapped_blocks=way.swapped_blocks)


def _fit(backbone: PipelineBackbone, asked: Asked, lower: str, gigabytes: float) -> str:
    if gigabytes:
        imitate(backbone, gigabytes)
    swapping = not backbone.speed.compiled and (backbone.device.type == "cuda" or backbone.memory_limit is not None)
    number, main_memory = torch.finfo(backbone.dtype).bits // 8, free_memory(torch.device("cpu"))
    among = [
        way
        for way in ways(backbone.architecture, asked.checkpointing, swapping, has_four_bit())
        if copied_bytes(backbone.architecture, way, number) <= main_memory
    ]
    free = room(backbone)
    choice = choose(backbone, asked, free - reserve(backbone), among)
    if choice is None:
        least = min(asked.need(way).total for way in among) + reserve(backbone)
        raise UserError(
            f"Nothing fits into {free / 1e9:.1f} GB: the smallest way needs about {least / 1e9:.1f} GB. Lower {lower}."
        )
    backbone.speed = speed_of(choice.way, backbone.speed)
    plain = asked.need(Way(asked.checkpointing[0])).total
    why = f"by arithmetic about the fastest way that fits into {free / 1e9:.1f} GB"
    return f"--fit: {choice}, {why}; with nothing done for it the job would need {plain / 1e9:.1f} GB"

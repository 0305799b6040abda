"""Whether a job fits: what it needs by arithmetic alone, known before 24 GB are loaded, against what is free.

A block is known by its linear layers, the sites. What it keeps for backward is a share of what they read and write,
which hardly depends on their sizes, but on the family: FLUX.1's was counted with saved-tensor hooks, the others' solved
from the peaks of two steps, without checkpoints and with full ones. A frozen Meta-Down spares each layer its input, so
Meta-LoRA keeps less than a plain LoRA. `tests/test_saved_activations.py` counts again, and
`tests/test_memory_measured.py` compares the sum with the peak of a step of every family.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import psutil
import torch

from ..backbones.architecture import TEXT_STREAM, VECTOR, Architecture
from ..backbones.block_swapping import BUFFERS
from ..backbones.pipeline import AS_IT_IS, PipelineBackbone, Speed
from ..backbones.protocol import Backbone
from ..backbones.speed import FOUR_BIT_BYTES, Checkpointing
from ..config import CropConfig, PersonalizeConfig
from ..config_meta_train import MetaTrainConfig
from ..method.adapter import Site
from ..method.crops import training_size

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
    speed: Speed = AS_IT_IS,
) -> TrainingMemory:
    """For images of size (width, height) pixels; `meta_rank` None is a plain LoRA."""
    tokens = batch * tokens_of(size, text_tokens)
    kept = activation_numbers(architecture, tokens, meta=meta_rank is not None, checkpointing=checkpointing)
    kept += widest(architecture) if speed.four_bit else 0
    trained, frozen = adapter_numbers(list(sites), rank, meta_rank)
    return TrainingMemory(
        weights=int(resident_bytes(architecture, speed, bytes_per_number)),
        activations=int(kept * bytes_per_number),
        adapters=4 * (4 * trained + frozen),
    )


def activation_numbers(architecture: Architecture, tokens: int, *, meta: bool, checkpointing: int) -> float:
    """Numbers at the worst moment. Checkpointing keeps a part of every block, and all of the one that is computed."""
    share, in_hand = shares(architecture, meta)
    named = zip(architecture.blocks, block_sizes(architecture), strict=True)
    blocks = [block for name, block in named if "context_refiner" not in name]  # Z-Image's for the prompt alone
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
    speed: Speed = AS_IT_IS,
) -> TrainingMemory:
    """For making one image: nothing is kept, and what one block would keep bounds what it has in hand."""
    share, _ = shares(architecture, meta=False)
    whole = max(block.kept(share, Checkpointing.NONE) for block in block_sizes(architecture))
    numbers = whole * tokens_of(size, text_tokens)
    numbers += widest(architecture) if speed.four_bit else 0
    weights = int(resident_bytes(architecture, speed, bytes_per_number))
    return TrainingMemory(weights, int(numbers * bytes_per_number), 0)


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


def resident_bytes(architecture: Architecture, speed: Speed, bytes_per_number: int) -> float:
    """Of the weights on the device, with the buffers that swapped blocks take turns in."""
    swapped = block_sizes(architecture)[-speed.swapped_blocks :] if speed.swapped_blocks else []
    buffers = BUFFERS * max((block.parameters for block in swapped), default=0)
    numbers = parameter_count(architecture) - swapped_parameters(architecture, speed.swapped_blocks) + buffers
    return numbers * weight_bytes(speed, bytes_per_number)


def weight_bytes(speed: Speed, bytes_per_number: int) -> float:
    """Of one weight of the blocks, with its share of the scales."""
    return 1 if speed.eight_bit else FOUR_BIT_BYTES if speed.four_bit else bytes_per_number


def estimate(
    backbone: Backbone,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    *,
    checkpointing: int,
    speed: Speed | None = None,
) -> TrainingMemory:
    """What a personalization needs, by default at the backbone's own speed.

    A square crop stands for all, which have the same area.
    """
    meta_rank = config.meta_rank if config.method == "meta-lora" else None
    return memory_on(backbone, config, crop_config.resolution, config.batch, meta_rank, checkpointing, speed)


def memory_on(
    backbone: Backbone,
    config: PersonalizeConfig | MetaTrainConfig,
    resolution: int,
    batch: int,
    meta_rank: int | None,
    checkpointing: int,
    speed: Speed | None = None,
) -> TrainingMemory:
    """`training_memory` of adapters at the config's sites, in the backbone's numbers and at its speed."""
    return training_memory(
        backbone.architecture,
        backbone.sites(config.sites),
        size=training_size(1.0, resolution, backbone.multiple),
        batch=batch,
        rank=config.rank,
        meta_rank=meta_rank,
        bytes_per_number=torch.finfo(backbone.dtype).bits // 8,
        checkpointing=checkpointing,
        text_tokens=backbone.caption_tokens,
        speed=speed or (backbone.speed if isinstance(backbone, PipelineBackbone) else AS_IT_IS),
    )


def free_memory(device: torch.device) -> int:
    """Bytes free on the device; what the CPU has is what programs can still get."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def cap_memory(device: torch.device, limit: float) -> None:
    """From here on the process gets no more of this GPU than so many bytes: a smaller card is imitated."""
    whole = torch.cuda.get_device_properties(device).total_memory
    # By its number, or None for the present one: torch refuses a "cuda" without a number here, and only here.
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / whole), device.index)


def room(backbone: Backbone) -> int:
    """Bytes that may be used on the backbone's device: what is free, or less where a smaller card is imitated."""
    free = free_memory(backbone.device)
    limit = backbone.memory_limit if isinstance(backbone, PipelineBackbone) else None
    return free if limit is None else min(free, limit)


def wants_checkpointing(backbone: Backbone, config: PersonalizeConfig, crop_config: CropConfig) -> Checkpointing:
    """What "auto" means: compute as little again as fits; as long as nothing fits, everything."""
    if config.gradient_checkpointing != "auto":
        return Checkpointing(config.gradient_checkpointing == "on")
    selective = [Checkpointing.SELECTIVE] if backbone.device.type == "cuda" else []  # a CPU is slower choosing
    for how in (Checkpointing.NONE, *selective):
        if fits(estimate(backbone, config, crop_config, checkpointing=how), backbone):
            return how
    return Checkpointing.FULL


def memory_warning(
    backbone: Backbone, config: PersonalizeConfig, crop_config: CropConfig, checkpointing: int
) -> str | None:
    """A sentence if the job looks too large. It is an estimate, so the job is tried all the same."""
    need = estimate(backbone, config, crop_config, checkpointing=checkpointing)
    if fits(need, backbone):
        return None
    return (
        f"warning: about {need.total / 1e9:.1f} GB are needed on {backbone.device} and "
        f"{room(backbone) / 1e9:.1f} GB are free; it may run out of memory"
    )


def fits(need: TrainingMemory, backbone: Backbone) -> bool:
    """Whether its device has that much free, and on a GPU a reserve beside it."""
    return need.total + reserve(backbone) <= room(backbone)


def reserve(backbone: Backbone) -> float:
    """Bytes that a GPU, or its imitation, needs for itself."""
    imitated = isinstance(backbone, PipelineBackbone) and backbone.memory_limit is not None
    return RESERVE if imitated or backbone.device.type != "cpu" else 0

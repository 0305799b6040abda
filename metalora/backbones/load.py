"""A backbone from what a user says: a name, a folder, or the single files that are around."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ..config import DEFAULT_BACKBONE, BaseConfig, SpeedConfig, UserError
from .bases import BASES
from .block_swapping import check_count
from .pipeline import Parts, PipelineBackbone
from .pipeline_folder import MINIATURE, Miniature, PipelineFolder
from .single_files import SingleFiles
from .speed import Speed, attention_that_runs
from .tiny_flux import TinyFlux
from .weight_files import header_of

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_backbone(
    name: str, *, device: str = "auto", precision: str = "auto", single_files: Mapping[str, Path] | None = None
) -> PipelineBackbone:
    """`name`: miniature, tiny, one of BASES, a diffusers folder, a hub name; `single_files` take the place
    of its own weights.

    Nothing is loaded yet: the parts are, when they are needed.
    """
    parts = find_parts(name, single_files or {})
    chosen = choose_device(device)
    if precision == "auto":
        precision = "fp32" if isinstance(parts, TinyFlux | Miniature) else "bf16"
    return PipelineBackbone(parts, chosen, PRECISIONS[precision])


def open_backbone(config: BaseConfig, how: SpeedConfig | None = None) -> PipelineBackbone:
    """The base that is named, to be run in this way; nothing is loaded yet."""
    files = config.single_files
    name = default_base(files) if config.backbone is None else config.backbone
    backbone = load_backbone(name, device=config.device, precision=config.precision, single_files=files)
    if how is not None:
        backbone.speed = speed_of(how)
        if backbone.speed.swapped_blocks:
            check_count(backbone.speed.swapped_blocks, len(backbone.architecture.blocks))
        backbone.speed.check(backbone.device)
    return backbone


def speed_of(how: SpeedConfig) -> Speed:
    """What the settings say."""
    return Speed(how.compile, how.attention, how.eight_bit, how.four_bit, how.swap_blocks)


def how_it_runs(backbone: PipelineBackbone) -> str:
    """A sentence."""
    kernel = attention_that_runs(backbone.speed, backbone.device, backbone.dtype)
    return f"the base runs in {str(backbone.dtype).removeprefix('torch.')}: {backbone.speed} ({kernel})"


def default_base(files: Mapping[str, Path]) -> str:
    """Which base is meant where none is named: with single files FLUX.1's, dev or schnell by its transformer."""
    if not files:
        return DEFAULT_BACKBONE
    path = files.get("transformer")
    dev = path is None or not path.is_file() or any("guidance" in key for key in header_of(path))
    return "flux-dev" if dev else "flux-schnell"


def find_parts(name: str, files: Mapping[str, Path]) -> Parts:
    """Where the parts come from."""
    if files and name == "tiny":
        raise UserError("tiny is drawn from a seed: single files are not of it. Name their base with --backbone.")
    if files:
        return SingleFiles(MINIATURE if name == "miniature" else BASES[name].hub if name in BASES else name, files)
    if name == "miniature":
        return Miniature()
    if name == "tiny":
        return TinyFlux()
    return PipelineFolder(BASES[name].hub if name in BASES else name)


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

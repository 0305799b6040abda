"""A backbone from what a user says: a name, a folder, or the single files that are around."""

from pathlib import Path

import torch

from ..config import DEFAULT_BACKBONE, BaseConfig, SpeedConfig, UserError
from .bases import BASES
from .block_swapping import check_count
from .family import Parts
from .pipeline import PipelineBackbone
from .pipeline_folder import Miniature, PipelineFolder
from .single_files import SingleFiles
from .speed import Speed, attention_that_runs
from .tiny_flux import TinyFlux

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_backbone(
    name: str, *, device: str = "auto", precision: str = "auto", single_files: dict[str, Path] | None = None
) -> PipelineBackbone:
    """`name`: miniature, tiny, one of BASES, a diffusers folder, a hub name; `single_files` take its place.

    Nothing is loaded yet: the parts are, when they are needed.
    """
    parts = find_parts(name, single_files or {})
    chosen = choose_device(device)
    if precision == "auto":
        precision = "fp32" if isinstance(parts, TinyFlux | Miniature) else "bf16"
    return PipelineBackbone(parts, chosen, PRECISIONS[precision])


def open_backbone(config: BaseConfig, how: SpeedConfig | None = None) -> PipelineBackbone:
    """The base that is named, to be run in this way; nothing is loaded yet."""
    if config.single_files and config.backbone:
        given = ", ".join("--" + part.replace("_", "-") for part in config.single_files)
        raise UserError(f"--backbone {config.backbone} and {given} name two base models: leave one out.")
    name, files = config.backbone or DEFAULT_BACKBONE, config.single_files
    backbone = load_backbone(name, device=config.device, precision=config.precision, single_files=files)
    if how is not None:
        backbone.speed = speed_of(how)
        if backbone.speed.swapped_blocks:
            check_count(backbone.speed.swapped_blocks, len(backbone.architecture.blocks))
        backbone.speed.check(backbone.device)
    return backbone


def speed_of(how: SpeedConfig) -> Speed:
    """What the settings say."""
    return Speed(how.compile, how.attention, how.eight_bit, how.four_bit, how.swap_blocks, how.cuda_graphs)


def how_it_runs(backbone: PipelineBackbone) -> str:
    """A sentence."""
    kernel = attention_that_runs(backbone.speed, backbone.device, backbone.dtype)
    return f"the base runs in {str(backbone.dtype).removeprefix('torch.')}: {backbone.speed} ({kernel})"


def find_parts(name: str, single_files: dict[str, Path]) -> Parts:
    """Where the parts come from."""
    if single_files:
        missing = [part for part in ("transformer", "vae", "clip_l", "t5xxl") if part not in single_files]
        if missing:
            flags = ", ".join("--" + part.replace("_", "-") for part in missing)
            raise UserError(f"Single files are used all together: {flags} is missing.")
        return SingleFiles(**single_files)
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
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name} cannot be used here: {str(error).splitlines()[0]}. Try --device cpu."
        ) from error
    return device

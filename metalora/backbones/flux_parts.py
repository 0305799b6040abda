"""The parts of a FLUX, each loaded when asked for, wherever they come from: a pipeline folder, single files, a seed."""

from pathlib import Path
from typing import Any, Protocol

import torch

from .diffusers_folder import DiffusersFolder
from .keys import FluxShape
from .single_files import SingleFiles
from .tiny_flux import TinyFlux

__all__ = ["DiffusersFolder", "FluxParts", "SingleFiles", "TinyFlux", "save_pipeline"]

PARTS = ("text_encoders", "autoencoder", "transformer")


class FluxParts(Protocol):
    """Loads nothing until a part is asked for, and keeps no part: whoever asked frees it."""

    @property
    def shape(self) -> FluxShape:
        """The architecture, from headers and settings alone."""
        ...

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """What FlowMatchEulerDiscreteScheduler is made from: shift, use_dynamic_shifting, base_shift, max_shift, ..."""
        ...

    @property
    def max_tokens(self) -> int:
        """How many tokens of T5 a prompt is padded to, or cut at."""
        ...

    def text_encoders(self, device: torch.device | str, dtype: torch.dtype) -> tuple[Any, Any, Any, Any]:
        """(CLIPTokenizer, CLIPTextModel, T5TokenizerFast, T5EncoderModel)."""
        ...

    def autoencoder(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """AutoencoderKL."""
        ...

    def transformer(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """FluxTransformer2DModel."""
        ...

    def fingerprint(self, part: str) -> str:
        """Changes when the outputs of "text_encoders", "autoencoder" or "transformer" may change."""
        ...

    def weights_bytes(self) -> dict[str, int]:
        """How large each part is in its file."""
        ...

    def missing(self) -> list[str]:
        """A sentence for each file that is not there, with the place where it belongs."""
        ...


def save_pipeline(parts: FluxParts, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write all parts as a folder that `FluxPipeline.from_pretrained` opens."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    clip_tokenizer, clip, t5_tokenizer, t5 = parts.text_encoders("cpu", dtype)
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(parts.scheduler_config),
        vae=parts.autoencoder("cpu", dtype),
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=parts.transformer("cpu", dtype),
    ).save_pretrained(folder)

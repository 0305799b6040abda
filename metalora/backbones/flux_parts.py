"""The parts of a FLUX, each loaded when asked for, wherever they come from: a pipeline folder, single files, a seed."""

from pathlib import Path
from typing import Any, Protocol

import torch

from .autoencoder_file import write_ldm_autoencoder
from .checkpoint import write_bfl_transformer
from .diffusers_folder import DiffusersFolder
from .keys import FluxShape
from .single_files import SingleFiles
from .text_encoder_files import write_clip, write_t5
from .tiny_flux import TinyFlux

__all__ = ["DiffusersFolder", "FluxParts", "SingleFiles", "TinyFlux", "save_pipeline", "save_single_files"]


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

    def t5_tokenizer(self) -> Any:
        """T5TokenizerFast, without the encoder."""
        ...

    def text_encoders(self, device: torch.device | str, dtype: torch.dtype) -> tuple[Any, Any, Any, Any]:
        """(CLIPTokenizerFast, CLIPTextModel, T5TokenizerFast, T5EncoderModel)."""
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
    pipeline: Any = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(parts.scheduler_config),
        vae=parts.autoencoder("cpu", dtype),
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=parts.transformer("cpu", dtype),
    )
    pipeline.save_pretrained(folder)


def save_single_files(parts: FluxParts, folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, Path]:
    """Write all parts as single files with the tokenizers beside them; the paths as SingleFiles takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("transformer", "vae", "clip_l", "t5xxl")
    paths = {name: folder / f"{name}.safetensors" for name in names} | {"tokenizers": folder}
    clip_tokenizer, clip, t5_tokenizer, t5 = parts.text_encoders("cpu", dtype)
    clip_tokenizer.save_pretrained(folder / "tokenizer")
    t5_tokenizer.save_pretrained(folder / "tokenizer_2")
    write_clip(clip, paths["clip_l"])
    write_t5(t5, paths["t5xxl"])
    write_ldm_autoencoder(parts.autoencoder("cpu", dtype), paths["vae"])
    write_bfl_transformer(parts.transformer("cpu", dtype), paths["transformer"])
    return paths

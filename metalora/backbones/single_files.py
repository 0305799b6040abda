"""A FLUX from the single files that people have: transformer, autoencoder, CLIP and T5."""

from pathlib import Path
from typing import Any

import torch

from .keys import FluxShape


class SingleFiles:
    """FluxParts from flux1-dev.safetensors, ae.safetensors, clip_l.safetensors and t5xxl_*.safetensors."""

    def __init__(self, transformer: Path, vae: Path, clip_l: Path, t5xxl: Path, tokenizers: Path | None = None):
        self.files = {"transformer": transformer, "vae": vae, "clip_l": clip_l, "t5xxl": t5xxl}
        self.tokenizers = tokenizers

    @property
    def shape(self) -> FluxShape:
        raise NotImplementedError
    @property
    def scheduler_config(self) -> dict[str, Any]:
        raise NotImplementedError
    @property
    def max_tokens(self) -> int:
        raise NotImplementedError
    def text_encoders(self, device: torch.device | str, dtype: torch.dtype) -> tuple[Any, Any, Any, Any]:
        raise NotImplementedError
    def autoencoder(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        raise NotImplementedError
    def transformer(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        raise NotImplementedError
    def fingerprint(self, part: str) -> str:
        raise NotImplementedError
    def weights_bytes(self) -> dict[str, int]:
        raise NotImplementedError
    def missing(self) -> list[str]:
        raise NotImplementedError

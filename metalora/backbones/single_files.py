"""A FLUX from the single files that people have: transformer, autoencoder, CLIP and T5."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..config import UserError
from . import autoencoder_file, checkpoint, text_encoder_files
from .families.flux import FLUX
from .fingerprints import fingerprint_of_files
from .flux_configs import max_tokens, scheduler_config
from .keys import FluxShape
from .tokenizer_files import read_tokenizers, tokenizer_folders
from .weight_files import find_part

LANDMARKS = {
    "transformer": (checkpoint.BFL, checkpoint.DIFFUSERS),
    "vae": (autoencoder_file.LDM, autoencoder_file.DIFFUSERS),
    "clip_l": (text_encoder_files.CLIP,),
    "t5xxl": (text_encoder_files.T5,),
}
FILES = {"text_encoders": ("clip_l", "t5xxl"), "autoencoder": ("vae",), "transformer": ("transformer",)}
ORIGIN = {
    "transformer": "flux1-dev.safetensors of black-forest-labs/FLUX.1-dev, or an fp8 variant of it; in ComfyUI it lies "
    "in models/diffusion_models or models/checkpoints",
    "vae": "ae.safetensors of black-forest-labs/FLUX.1-dev; in ComfyUI it lies in models/vae",
    "clip_l": "clip_l.safetensors of comfyanonymous/flux_text_encoders; in ComfyUI it lies in models/text_encoders",
    "t5xxl": "t5xxl_fp16.safetensors or t5xxl_fp8_e4m3fn.safetensors of comfyanonymous/flux_text_encoders; in ComfyUI "
    "it lies in models/text_encoders",
}


class SingleFiles:
    """`pipeline.Parts` from four files, which may all be one: an all-in-one checkpoint of ComfyUI's."""

    family = FLUX
    name = "single files"
    settings: Mapping[str, Any] = {}

    def __init__(self, transformer: Path, vae: Path, clip_l: Path, t5xxl: Path, tokenizers: Path | None = None):
        self.files = {"transformer": transformer, "vae": vae, "clip_l": clip_l, "t5xxl": t5xxl}
        self.tokenizers = tokenizers

    @cached_property
    def architecture(self) -> FluxShape:
        """From the header of the transformer's file."""
        self._check("transformer")
        return checkpoint.flux_shape_of(self.files["transformer"])

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """FLUX.1's own: the files do not hold it."""
        return scheduler_config(self.architecture)

    @property
    def max_tokens(self) -> int:
        """What the tokenizer says, but at most what FLUX was trained with."""
        _, t5 = self._tokenizers
        return min(max_tokens(self.architecture), t5.model_max_length)

    def tokenizer(self) -> Any:
        """The second of the tokenizers."""
        return self._tokenizers[1]

    def text_encoders(self, device: torch.device | str, dtype: torch.dtype) -> dict[str, Any]:
        """The tokenizers first: they are what is most often missing, and quickly found to be."""
        self._check("text_encoders")
        clip_tokenizer, t5_tokenizer = self._tokenizers
        clip = text_encoder_files.read_clip(self.files["clip_l"], self.architecture, dtype, device)
        t5 = text_encoder_files.read_t5(self.files["t5xxl"], self.architecture, dtype, device)
        return {
            "tokenizer": clip_tokenizer,
            "text_encoder": clip,
            "tokenizer_2": t5_tokenizer,
            "text_encoder_2": t5,
        }

    def autoencoder(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """From ae.safetensors or the like."""
        self._check("autoencoder")
        return autoencoder_file.read_autoencoder(self.files["vae"], self.architecture, dtype, device)

    def transformer(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """From flux1-dev.safetensors or the like."""
        self._check("transformer")
        return checkpoint.read_flux_transformer(self.files["transformer"], dtype, device)

    def fingerprint(self, part: str) -> str:
        """Of the part's weight files, and of the tokenizers for the text encoders."""
        self._check(part)
        files = [self.files[name] for name in FILES[part]]
        if part == "text_encoders":
            folders = tokenizer_folders(self.tokenizers)
            files += [file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
        return fingerprint_of_files(files)

    def weights_bytes(self) -> dict[str, int]:
        """From the headers, counting only what belongs to the part."""
        sizes = {
            name: sum(entry.bytes for entry in find_part(path, LANDMARKS[name])[2].values())
            for name, path in self.files.items()
        }
        return {part: sum(sizes[name] for name in names) for part, names in FILES.items()}

    def missing(self) -> list[str]:
        """Which files are not there, and what they would be."""
        sentences = [self._absent(name) for name, path in self.files.items() if not path.is_file()]
        try:
            tokenizer_folders(self.tokenizers)
        except UserError as error:
            sentences.append(str(error))
        return sentences

    @cached_property
    def _tokenizers(self) -> tuple[Any, Any]:
        return read_tokenizers(*tokenizer_folders(self.tokenizers))

    def _check(self, part: str) -> None:
        absent = [self._absent(name) for name in FILES[part] if not self.files[name].is_file()]
        if absent:
            raise UserError(" ".join(absent))

    def _absent(self, name: str) -> str:
        return f"{self.files[name]} does not exist; needed is {ORIGIN[name]}."

"""A FLUX.1's parts written to disk, as a pipeline folder or as the single files that people have."""

from pathlib import Path
from typing import Any

import torch

from .autoencoder_file import write_ldm_autoencoder
from .checkpoint import write_bfl_transformer
from .family import Parts
from .text_encoder_files import write_clip, write_t5


def save_pipeline(parts: Parts, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write all parts as a folder that `FluxPipeline.from_pretrained` opens."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    pipeline: Any = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(parts.scheduler_config),
        vae=parts.autoencoder("cpu", dtype),
        **parts.text_encoders("cpu", dtype),
        transformer=parts.transformer("cpu", dtype),
    )
    pipeline.save_pretrained(folder)


def save_single_files(parts: Parts, folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, Path]:
    """Write all parts as single files with the tokenizers beside them; the paths as SingleFiles takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("transformer", "vae", "clip_l", "t5xxl")
    paths = {name: folder / f"{name}.safetensors" for name in names} | {"tokenizers": folder}
    texts = parts.text_encoders("cpu", dtype)
    for name in ("tokenizer", "tokenizer_2"):
        texts[name].save_pretrained(folder / name)
    write_clip(texts["text_encoder"], paths["clip_l"])
    write_t5(texts["text_encoder_2"], paths["t5xxl"])
    write_ldm_autoencoder(parts.autoencoder("cpu", dtype), paths["vae"])
    write_bfl_transformer(parts.transformer("cpu", dtype), paths["transformer"])
    return paths

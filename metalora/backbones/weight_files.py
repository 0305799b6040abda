"""One part's weights of a safetensors file, fp8 scales applied.

A file may hold more than one part (ComfyUI's all-in-one checkpoints do): a part's tensors then share a prefix.
"""

import hashlib
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..config import UserError
from .pipeline_folder import header_of

SCALES = (".scale_weight", ".weight_scale")  # ComfyUI's scaled fp8, of 2025 and later: weight = scale * what is stored
NO_WEIGHTS = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant")
MARK = "scaled_fp8"  # a tensor that only says that there are scales
NUMBERS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
PREFIXES = {
    "transformer": re.compile(r"(model\.)?diffusion_model\.|transformer\."),
    "vae": re.compile(r"vae\.|first_stage_model\."),
    "clip_l": re.compile(r"text_encoders\.clip_l\.transformer\."),
    "t5xxl": re.compile(r"text_encoders\.t5xxl\.transformer\."),
    "text_encoder": re.compile(r"text_encoders\.\w+\.transformer\."),
}
MOST = 100_000


def part_of(path: Path, part: str) -> dict[str, tuple[str, str, int]]:
    """A part's tensors by their names without its prefix, where any has it; else all.

    Of each its name in the file, its kind and its size in bytes.
    """
    header = header_of(path)
    found = {key[match.end() :]: (key, *of) for key, of in header.items() if (match := PREFIXES[part].match(key))}
    return found or {key: (key, *of) for key, of in header.items()}


def read_weights(path: Path, part: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Tensor]:
    """A part's weights, one by one to the device: scaled ones are multiplied in float32 before they are rounded.

    A UserError for what is damaged, or kept in numbers that only ComfyUI reads.
    """
    entries = part_of(path, part)
    found = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name, (key, kind, _) in entries.items():
                if name.endswith(NO_WEIGHTS) or name == MARK:
                    continue
                if kind not in NUMBERS:
                    if name.endswith((".weight", ".bias")):
                        raise UserError(_packed(path, name, kind))
                    continue  # positions, or a tokenizer
                tensor = file.get_tensor(key)
                scales = [name.removesuffix(".weight") + ending for ending in SCALES if name.endswith(".weight")]
                if there := [entries[one][0] for one in scales if one in entries]:
                    scale = file.get_tensor(there[0])
                    if scale.numel() not in (1, len(tensor)):
                        raise UserError(_packed(path, name, f"one scale for each block of {kind} numbers"))
                    tensor = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
                found[name] = tensor.to(device, dtype, copy=True)  # a copy: safetensors returns a view of the file
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Copy it again.") from error
    return found


def _packed(path: Path, name: str, kind: str) -> str:
    return (
        f"{path} keeps {name} as {kind}, which only ComfyUI reads. Use the bf16 or fp8 file of this model; --eight-bit "
        "and --four-bit make it as small in memory."
    )


def fingerprint_of_stats(paths: Iterable[Path]) -> str:
    """sha256 over the names, sizes and dates of at most `MOST` files, where reading them all takes too long."""
    files = [path for path in islice(paths, MOST) if path.is_file()]
    seen = sorted(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    return hashlib.sha256("\n".join(seen).encode("utf-8", "replace")).hexdigest()

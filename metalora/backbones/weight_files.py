"""Safetensors files of frozen weights: what their headers say, and one part's tensors, fp8 scales applied.

A file may hold more than one part (ComfyUI's all-in-one checkpoints do): a part's tensors then share a prefix. Cache
keys name a file by its fingerprint: its content if it is small, else a sample of it that takes no minutes to read.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..config import UserError

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
WHOLE = 256 * 2**20  # files up to this are read whole
MOST = 100_000
SAMPLES, SAMPLE = 64, 2**16


@dataclass(frozen=True)
class Entry:
    """One tensor of a file's header."""

    shape: tuple[int, ...]
    bytes: int
    kind: str  # "BF16"


def header_of(path: Path) -> dict[str, Entry]:
    """Every tensor's shape and size, without reading one."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(path.stat().st_size, 10**8):
                raise ValueError(f"its header would be {length} bytes long")
            entries = json.loads(file.read(length))
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is not a safetensors file ({error}). A .safetensors file is needed.") from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    entries.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if 8 + length + end != path.stat().st_size:
        raise UserError(
            f"{path} is {path.stat().st_size} bytes long, its header says {8 + length + end}: copy it again."
        )
    return {
        name: Entry(tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0], entry["dtype"])
        for name, entry in entries.items()
    }


def part_of(path: Path, part: str) -> dict[str, tuple[str, Entry]]:
    """A part's tensors by their names without its prefix, where any has it; else all. With their names in the file."""
    header = header_of(path)
    found = {key[match.end() :]: (key, entry) for key, entry in header.items() if (match := PREFIXES[part].match(key))}
    return found or {key: (key, entry) for key, entry in header.items()}


def read_weights(path: Path, part: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Tensor]:
    """A part's weights, one by one to the device: scaled ones are multiplied in float32 before they are rounded.

    A UserError for what is damaged, or kept in numbers that only ComfyUI reads.
    """
    entries = part_of(path, part)
    found = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name, (key, entry) in entries.items():
                if name.endswith(NO_WEIGHTS) or name == MARK:
                    continue
                if entry.kind not in NUMBERS:
                    if name.endswith((".weight", ".bias")):
                        raise UserError(_packed(path, name, entry.kind))
                    continue  # positions, or a tokenizer
                tensor = file.get_tensor(key)
                scales = [name.removesuffix(".weight") + ending for ending in SCALES if name.endswith(".weight")]
                if there := [entries[one][0] for one in scales if one in entries]:
                    scale = file.get_tensor(there[0])
                    if scale.numel() not in (1, len(tensor)):
                        raise UserError(_packed(path, name, f"one scale for each block of {entry.kind} numbers"))
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


def fingerprint_of_files(paths: Iterable[Path]) -> str:
    """sha256 over the files' names and fingerprints, in the given order; the folder does not matter."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(f"{path.name}\0{fingerprint_of_file(path)}\0".encode())
    return sha.hexdigest()


def fingerprint_of_stats(paths: Iterable[Path]) -> str:
    """sha256 over the names, sizes and dates of at most `MOST` files, where reading them all takes too long."""
    files = [path for path in islice(paths, MOST) if path.is_file()]
    seen = sorted(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    return hashlib.sha256("\n".join(seen).encode("utf-8", "replace")).hexdigest()


def fingerprint_of_file(path: Path) -> str:
    """sha256 of the content; of a larger file: of its size, its header, and 64 samples of 64 KiB at even distances.

    Other names, shapes or types of tensors are in the safetensors header, so they show for certain. A
    change of single weights between two samples goes unseen; a trained or converted model changes everywhere.
    """
    size = path.stat().st_size
    sha = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            while block := file.read(2**20):
                sha.update(block)
        else:
            length = int.from_bytes(file.read(8), "little")
            sha.update(file.read(min(length, 2**24)))  # a safetensors header; of another file just its start
            for index in range(SAMPLES):
                file.seek((size - SAMPLE) * index // (SAMPLES - 1))
                sha.update(file.read(SAMPLE))
    return sha.hexdigest()

"""Safetensors files of frozen weights: what their headers say, and their tensors one at a time, fp8 scales applied.

A file may hold more than one part (ComfyUI's all-in-one checkpoints do): a part's tensors share a prefix, and a tensor
that every such part has, its landmark, tells which prefix that is.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..config import UserError

SCALES = (".scale_weight", ".weight_scale")  # ComfyUI's scaled fp8, of 2025 and later: weight = scale * what is stored
NO_WEIGHTS = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant")
MARK = "scaled_fp8"  # an empty tensor that only says that there are scales


@dataclass(frozen=True)
class Entry:
    """One tensor of a file's header."""

    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Landmark:
    """What a kind of part is called, the tensor that each has, and the prefixes under which it was seen."""

    part: str
    tensor: str
    prefixes: tuple[str, ...]


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
        name: Entry(tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in entries.items()
    }


def find_part(path: Path, landmarks: tuple[Landmark, ...]) -> tuple[Landmark, str, dict[str, Entry]]:
    """The landmark that was found, its prefix, and the entries under the prefix by their names without it."""
    header = header_of(path)
    for landmark in landmarks:
        for prefix in landmark.prefixes:
            if prefix + landmark.tensor in header:
                named = {name: entry for name, entry in header.items() if name.startswith(prefix)}
                return landmark, prefix, {name.removeprefix(prefix): entry for name, entry in named.items()}
    raise UserError(
        f"{path} holds no {landmarks[0].part}: none of its {len(header)} tensors is "
        f"{' or '.join(landmark.tensor for landmark in landmarks)}. Is it the file of another part?"
    )


def size_in(entries: dict[str, Entry], name: str, dimension: int, path: Path, part: str) -> int:
    """One dimension of a tensor that every `part` of this kind has."""
    if name not in entries or len(entries[name].shape) <= dimension:
        raise UserError(f"{path} is not a {part} that this program knows: {name} is missing from it or misshapen.")
    return entries[name].shape[dimension]


class WeightFile:
    """An open file's tensors of one part; scales and marks are out of sight."""

    def __init__(self, file: safe_open, prefix: str, entries: dict[str, Entry]):
        self._file, self._prefix, self.entries = file, prefix, entries
        self.shapes = {
            name: entry.shape for name, entry in entries.items() if not name.endswith(NO_WEIGHTS) and name != MARK
        }

    def read(self, name: str, rows: slice, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """Some rows of a tensor; a scaled one is multiplied in float32 before it is rounded to `dtype`."""
        tensor = self._rows(name, rows)
        for ending in SCALES:
            scale = name.removesuffix(".weight") + ending
            if name.endswith(".weight") and scale in self.entries:
                factor = self._file.get_tensor(self._prefix + scale).float()
                tensor = tensor.float() * (factor if factor.numel() == 1 else factor[rows])
        return tensor.to(device, dtype, copy=True)  # a copy: what safetensors returns is a view of the file

    def _rows(self, name: str, rows: slice) -> Tensor:
        if rows == slice(None):
            return self._file.get_tensor(self._prefix + name)
        return self._file.get_slice(self._prefix + name)[rows]


@contextmanager
def opened_weights(path: Path, *landmarks: Landmark) -> Iterator[tuple[Landmark, WeightFile]]:
    """A weight file open for reading, and the landmark found in it."""
    landmark, prefix, entries = find_part(path, landmarks)
    try:
        with safe_open(path, framework="pt") as file:
            yield landmark, WeightFile(file, prefix, entries)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Copy it again.") from error

"""Safetensors files of frozen weights: what their headers say, and their tensors one at a time, fp8 scales applied."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..config import UserError

SCALES = (".scale_weight", ".weight_scale")  # per tensor: the weight is this times what is stored
NOT_WEIGHTS = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant")
MARK = "scaled_fp8"  # an empty tensor that only says that the file has scales


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself."""

    shapes: dict[str, tuple[int, ...]]
    bytes: int  # of all tensors


def header_of(path: Path) -> Header:
    """Names and shapes without reading a tensor."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(path.stat().st_size, 10**8):
                raise ValueError(f"its header would be {length} bytes long")
            entries = json.loads(file.read(length))
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is not a safetensors file ({error}). It may be cut short: copy it again.") from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    entries.pop("__metadata__", None)
    ends = [entry["data_offsets"][1] for entry in entries.values()]
    if 8 + length + max(ends, default=0) != path.stat().st_size:
        raise UserError(f"{path} is not as long as its header says: it was cut short. Copy it again.")
    return Header({name: tuple(entry["shape"]) for name, entry in entries.items()}, max(ends, default=0))


class WeightFile:
    """An open weight file: names without `prefix`, scales and marks out of sight."""

    def __init__(self, file: safe_open, shapes: dict[str, tuple[int, ...]], prefix: str):
        self._file, self._all, self._prefix = file, set(shapes), prefix
        self.shapes = {
            name.removeprefix(prefix): shape
            for name, shape in shapes.items()
            if not name.endswith(NOT_WEIGHTS) and name.removeprefix(prefix) != MARK
        }

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """One tensor in `dtype`; a scaled one is multiplied in float32 first."""
        full = self._prefix + name
        tensor = self._file.get_tensor(full)
        scales = [full.removesuffix(".weight") + scale for scale in SCALES if full.endswith(".weight")]
        for scale in scales:
            if scale in self._all:
                tensor = tensor.float() * self._file.get_tensor(scale).float()
        return tensor.to(dtype)


@contextmanager
def opened_weights(path: Path, prefixes: tuple[str, ...] = ("",)) -> Iterator[WeightFile]:
    """A weight file open for reading; the first prefix that most of its names have is taken off them."""
    shapes = header_of(path).shapes
    prefix = next((p for p in prefixes if 2 * sum(name.startswith(p) for name in shapes) > len(shapes)), "")
    try:
        with safe_open(path, framework="pt") as file:
            yield WeightFile(file, shapes, prefix)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Copy it again.") from error


def numbers(shapes: dict[str, tuple[int, ...]]) -> int:
    """How many numbers these shapes hold."""
    return sum(math.prod(shape) for shape in shapes.values())

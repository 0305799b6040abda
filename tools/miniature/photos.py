"""Reading rendered shards back: photos, whose they are, and what their captions say."""

import json
import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .captions import Attributes


@dataclass(frozen=True)
class Photos:
    pixels: Tensor  # [n, 3, size, size] bytes
    people: np.ndarray  # [n]
    attributes: list[Attributes]

    def __len__(self) -> int:
        return len(self.people)


def read_shards(folder: pathlib.Path, limit: int | None = None) -> Photos:
    """All photos of the finished shards of a folder, in order; at most `limit` shards."""
    paths = sorted(path for path in folder.glob("*.npz") if "partial" not in path.name)[:limit]
    if not paths:
        raise SystemExit(f"{folder} holds no shards. Make some with tools.miniature.render.")
    shards = [np.load(path) for path in paths]
    pixels = np.concatenate([shard["photos"] for shard in shards]).transpose(0, 3, 1, 2)
    captions = [json.loads(str(caption)) for shard in shards for caption in shard["captions"]]
    people = np.concatenate([shard["people"] for shard in shards])
    return Photos(torch.from_numpy(np.ascontiguousarray(pixels)), people, captions)


def to_signal(pixels: Tensor) -> Tensor:
    """Bytes to -1..1, what autoencoders eat."""
    return pixels.float() / 127.5 - 1


def to_pixels(signal: Tensor) -> np.ndarray:
    """[n, 3, h, w] of -1..1 to [n, h, w, 3] bytes."""
    return ((signal.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def write_report(report: dict, path: pathlib.Path) -> None:
    """What a check found: as a file, and on the terminal."""
    text = json.dumps(report, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(text)

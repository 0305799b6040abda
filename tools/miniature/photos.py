"""Rendered photos on disk: shards read back, with whose they are and what their captions say; and pictures as files."""

import io
import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .captions import Attributes


@dataclass(frozen=True)
class Photos:
    pixels: Tensor  # [n, 3, size, size] bytes
    people: np.ndarray  # [n]
    attributes: list[Attributes]

    def __len__(self) -> int:
        return len(self.people)

    def beside(self, others: "Photos") -> "Photos":
        pixels = torch.cat([self.pixels, others.pixels])
        return Photos(pixels, np.concatenate([self.people, others.people]), self.attributes + others.attributes)


def read_shards(folder: pathlib.Path, people: int | None = None) -> Photos:
    """All photos of the finished shards of a folder, in order; only those of the first so many people, if said."""
    paths = sorted(path for path in folder.glob("*.npz") if "partial" not in path.name)
    if not paths:
        raise SystemExit(f"{folder} holds no shards. Make some with tools.miniature.render.")
    pictures, owners, captions = [], [], []
    for path in paths:
        with np.load(path) as shard:
            pictures.append(shard["photos"])
            owners += shard["people"].tolist()
            captions += [json.loads(str(caption)) for caption in shard["captions"]]
        if people is not None and len(set(owners)) >= people:
            break
    first = set(list(dict.fromkeys(owners))[:people])
    count = sum(owner in first for owner in owners)  # a person's photos follow each other
    pixels = np.ascontiguousarray(np.concatenate(pictures)[:count].transpose(0, 3, 1, 2))
    return Photos(torch.from_numpy(pixels), np.array(owners[:count]), captions[:count])


def write_shard(path: pathlib.Path, pictures: np.ndarray, people: Sequence[int], said: Sequence[Attributes]) -> None:
    """Pictures [n, size, size, 3] of bytes, whose each is and what its caption says: there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, photos=pictures, people=np.array(people), captions=[json.dumps(one) for one in said])
    partial.replace(path)


def to_signal(pixels: Tensor) -> Tensor:
    """Bytes to -1..1, what autoencoders eat."""
    return pixels.float() / 127.5 - 1


def to_pixels(signal: Tensor) -> np.ndarray:
    """[n, 3, h, w] of -1..1 to [n, h, w, 3] bytes."""
    return ((signal.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def save_sheet(pictures: Sequence[np.ndarray], columns: int, path: pathlib.Path) -> None:
    """Pictures [h, w, 3] of bytes, row by row; those of a last row that is not full are left out."""
    columns = min(columns, len(pictures))
    rows = [np.hstack(pictures[start : start + columns]) for start in range(0, len(pictures) - columns + 1, columns)]
    Image.fromarray(np.vstack(rows)).save(path)


def picture_file(picture: np.ndarray, quality: int | None = None) -> bytes:
    """A picture [height, width, 3] of bytes as a PNG file, or as a JPEG file of this quality, 1 to 100."""
    data = io.BytesIO()
    if quality is None:
        Image.fromarray(picture).save(data, "PNG")
    else:  # chroma at full resolution: a lip is few pixels
        Image.fromarray(picture).save(data, "JPEG", quality=quality, subsampling=0)
    return data.getvalue()


def write_report(report: dict, path: pathlib.Path) -> None:
    """What a check found: as a file, and on the terminal."""
    text = json.dumps(report, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(text)

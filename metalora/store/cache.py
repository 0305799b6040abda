"""Latents and prompt embeddings on disk, keyed by content: the same photo, box and autoencoder are encoded once.

A key is the hash of everything the result depends on. Names and dates are not part of it, so a renamed photo is a hit
and a changed one a miss; there is nothing to invalidate, and the folder may be deleted at any time.
"""

import json
import os
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from .files import digest, safetensors_bytes, write_bytes


def default_folder() -> Path:
    """METALORA_CACHE if set, else where the system keeps caches."""
    if folder := os.environ.get("METALORA_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metalora"


class Cache:
    """A folder of small safetensors files."""

    def __init__(self, folder: Path):
        self.folder = folder

    @staticmethod
    def key(**content: str | int | float | bool | list[float]) -> str:
        """The hash of what a result depends on."""
        return digest(json.dumps(content, sort_keys=True).encode())

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def get(self, key: str) -> dict[str, Tensor]:
        """What `put` stored under the key."""
        return load_file(self._path(key))

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Store; whole or not at all, so that a reader never finds half an entry."""
        write_bytes(self._path(key), safetensors_bytes(tensors, {"format": "pt"}))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

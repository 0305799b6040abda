"""Latents of many people on disk: one safetensors file a person, read a photo at a time.

A shard's name is the hash of all it depends on (the photos' bytes, sizes, the autoencoder), so adding a person
adds a file, and nothing has to be invalidated. Nothing is kept in memory: a shard is mapped, the one photo is copied
out of it, and the mapping is dropped; the system's page cache does the rest.
"""

import hashlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .cache import Cache
from .files import opened


class LatentShards:
    """The shards in a cache's folder."""

    def __init__(self, folder: Path):
        self._cache = Cache(folder)

    @staticmethod
    def key(photos: list[Path], **settings: str | int | float | bool) -> str:
        """The name of a person's shard."""
        digests = []
        for path in photos:
            with path.open("rb") as file:
                digests.append(_digest(file))
        return Cache.key(photos=",".join(digests), **settings)

    def __contains__(self, key: str) -> bool:
        return key in self._cache

    def put(self, key: str, latents: list[Tensor]) -> None:
        """Write a person's photos, [views, c, h, w] each; whole or not at all."""
        self._cache.put(key, {str(index): tensor for index, tensor in enumerate(latents)})

    def shapes(self, key: str) -> list[tuple[int, ...]]:
        """The shape of each photo's latents, without reading them."""
        with opened(self._cache.used(key)) as file:
            return [tuple(file.get_slice(str(index)).get_shape()) for index in range(len(file.keys()))]

    def read(self, key: str, photo: int, view: int) -> Tensor:
        """One view [c, h, w] of one photo, in float32: a copy."""
        with opened(self._cache.used(key)) as file:
            return file.get_slice(str(photo))[view].to(torch.float32, copy=True)


def _digest(file: BinaryIO) -> str:
    sha = hashlib.sha256()
    while block := file.read(1 << 20):
        sha.update(block)
    return sha.hexdigest()

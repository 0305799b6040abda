"""What FLUX learns from: photos and crops as latents, encoded once, and how batches of them are drawn."""

import hashlib
import pathlib
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .captions import Attributes, mirrored
from .flow_model import spoken
from .framings import framed
from .photos import Photos, to_signal
from .training import save_whole

CROPPED = 0.4  # the share of batches that show crops


class Source(Protocol):
    """Where batches come from."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Latents [count, 16, h, w] and what is said of them."""
        ...


@dataclass(frozen=True)
class Latents:
    """Every photo, encoded: [views, n, 16, h, w] half floats, scaled as FLUX does; view 1 is the mirror image."""

    values: Tensor
    attributes: list[Attributes]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        flips = torch.randint(len(self.values), (count,), generator=generator)
        index = torch.randint(self.values.shape[1], (count,), generator=generator)
        said = [
            spoken(mirrored(self.attributes[at]) if flip else self.attributes[at], generator)
            for flip, at in zip(flips.tolist(), index.tolist(), strict=True)
        ]
        return self.values[flips, index].float(), said


@dataclass(frozen=True)
class Mixture:
    """Whole photos in most batches, crops of one size in the others, sizes as often as they have crops."""

    whole: Latents
    crops: list[Latents]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        if torch.rand((), generator=generator) >= CROPPED:
            return self.whole.draw(count, generator)
        weights = torch.tensor([float(len(one.attributes)) for one in self.crops])
        return self.crops[int(torch.multinomial(weights, 1, generator=generator))].draw(count, generator)


def encoded(
    photos: Photos, autoencoder: AutoencoderKL, folder: pathlib.Path, cache: pathlib.Path, mirrored: bool = True
) -> Latents:
    """The photos' latents, from the cache if it was made of the same photos by the same autoencoder."""
    key = f"{_hash_of(folder)} {len(photos)} {mirrored}"
    if cache.exists() and (stored := torch.load(cache, weights_only=True))["key"] == key:
        return Latents(stored["values"], photos.attributes)
    values = encode(photos.pixels, autoencoder, mirrored)
    save_whole({"key": key, "values": values}, cache)
    return Latents(values, photos.attributes)


def encoded_crops(
    photos: Photos, every: int, autoencoder: AutoencoderKL, folder: pathlib.Path, cache: pathlib.Path
) -> list[Latents]:
    """Latents of `framed` crops, one size each, from the cache if it was made of the same photos in the same way."""
    key = f"{_hash_of(folder)} {len(photos)} every {every}"
    if not cache.exists() or (stored := torch.load(cache, weights_only=True))["key"] != key:
        crops = framed(photos, every, torch.Generator().manual_seed(0))
        sizes = [(encode(crop.pixels, autoencoder, mirrored=False), crop.attributes) for crop in crops]
        stored = {"key": key, "sizes": sizes}
        save_whole(stored, cache)
    return [Latents(values, attributes) for values, attributes in stored["sizes"]]


@torch.no_grad()
def encode(pixels: Tensor, autoencoder: AutoencoderKL, mirrored: bool) -> Tensor:
    """[views, n, 16, h, w]: bytes [n, 3, 8h, 8w] as FLUX's latents."""
    config, parts = autoencoder.config, []
    for start in range(0, len(pixels), 64):
        signal = to_signal(pixels[start : start + 64]).to(autoencoder.device)
        views = (signal, signal.flip(3)) if mirrored else (signal,)
        with torch.autocast(signal.device.type, torch.bfloat16):
            means = [autoencoder.encode(one).latent_dist.mean.float() for one in views]
        parts.append(((torch.stack(means) - config.shift_factor) * config.scaling_factor).half().cpu())
    return torch.cat(parts, dim=1)


def _hash_of(autoencoder: pathlib.Path) -> str:
    return hashlib.sha256((autoencoder / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()

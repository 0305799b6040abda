"""Images to the latents that a transformer was trained on, by the three kinds of statistics that autoencoders carry."""

from typing import Any

import torch
from torch import Tensor, nn


class Autoencoder:
    """A diffusers autoencoder: images [3, H, W] in 0..1 <-> latents [c, h, w] on the CPU; see `protocol.Autoencoder`.

    AutoencoderKL has one shift and one scale; AutoencoderKLQwenImage a mean and a deviation for each channel, and an
    axis of frames, of which an image is one; AutoencoderKLFlux2 makes patches of 2 x 2 first, and has the mean and the
    variance of each of their channels in a batch norm.
    """

    def __init__(self, vae: nn.Module):
        self.vae: Any = vae

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """The mean of the posterior, not a sample: the same photo gives the same latents."""
        pixels = (image[None] * 2 - 1).to(self.vae.device, self.vae.dtype)
        mean = self.vae.encode(pixels.unsqueeze(2) if self._frames else pixels).latent_dist.mode()
        return self._standard(mean.squeeze(2) if self._frames else mean)[0].float().cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[c, h, w] -> [3, H, W] in 0..1; or several at once, [n, c, h, w] -> [n, 3, H, W]."""
        batch = latents.reshape(-1, *latents.shape[-3:]).to(self.vae.device, self.vae.dtype)
        plain = self._plain(batch)
        images = self.vae.decode(plain.unsqueeze(2) if self._frames else plain, return_dict=False)[0]
        images = images[:, :, 0] if self._frames else images
        return (images.float().cpu() / 2 + 0.5).clamp(0, 1).view(*latents.shape[:-3], *images.shape[1:])

    @property
    def _frames(self) -> bool:
        return "latents_mean" in self.vae.config and "temperal_downsample" in self.vae.config

    @property
    def _patches(self) -> bool:
        return "batch_norm_eps" in self.vae.config

    def _standard(self, mean: Tensor) -> Tensor:
        """What the encoder said [b, c, h, w], as the transformer takes it."""
        config = self.vae.config
        if self._patches:
            middle, deviation = self._batch_norm()
            return (nn.functional.pixel_unshuffle(mean, 2) - middle) / deviation
        if self._frames:
            return (mean - _channels(config.latents_mean, mean)) / _channels(config.latents_std, mean)
        return (mean - config.shift_factor) * config.scaling_factor

    def _plain(self, latents: Tensor) -> Tensor:
        """The inverse."""
        config = self.vae.config
        if self._patches:
            middle, deviation = self._batch_norm()
            return nn.functional.pixel_shuffle(latents * deviation + middle, 2)
        if self._frames:
            return latents * _channels(config.latents_std, latents) + _channels(config.latents_mean, latents)
        return latents / config.scaling_factor + config.shift_factor

    def _batch_norm(self) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        deviation = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        return norm.running_mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)


def _channels(numbers: list[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)

"""The miniature's autoencoder: the class of diffusers with latents like those of FLUX, a quarter as wide."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from metalora.backbones.families.flux import autoencoder_config

from .photos import Photos, to_pixels, to_signal

# FLUX's own scale and shift of latents: ComfyUI has them built in.
CONFIG = autoencoder_config((32, 64, 128, 128), 1, 16) | {"norm_num_groups": 8, "sample_size": 128}
SCALES = 4  # compared at full, half, quarter and eighth size: the coarse ones see colours that are a little off
EDGE_WEIGHT = 0.5


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(**CONFIG)


def reconstruction_loss(made: Tensor, real: Tensor) -> Tensor:
    """Absolute error of colours and of edges, at several scales: sharp at small cost, and no other network's taste."""
    loss = torch.zeros((), device=made.device)
    for scale in range(SCALES):
        if scale:
            made, real = F.avg_pool2d(made, 2), F.avg_pool2d(real, 2)
        error = made - real
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        loss = loss + error.abs().mean() + EDGE_WEIGHT * edges
    return loss


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """How far the latents are from unit noise, per number."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def psnr(made: Tensor, real: Tensor) -> Tensor:
    """[n] in dB, of signals in -1..1, after the rounding that a saved picture goes through."""
    made = ((made.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return 10 * torch.log10(4 / (made - real).square().mean((1, 2, 3)))


@torch.no_grad()
def reconstructed(model: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, np.ndarray, Tensor]:
    """(latents, pictures [n, h, w, 3] of bytes, PSNR [n]) of photos [n, 3, h, w] of bytes."""
    latents, pictures, scores = [], [], []
    for part in pixels.split(32):
        real = to_signal(part).to(model.device)
        latents.append(model.encode(real).latent_dist.mean)
        made = model.decode(latents[-1]).sample
        pictures.append(to_pixels(made.cpu()))
        scores.append(psnr(made, real).cpu())
    return torch.cat(latents), np.concatenate(pictures), torch.cat(scores)


def shown_by(model: AutoencoderKL, photos: Photos) -> Photos:
    """The same photos as the autoencoder gives them back: no image of the miniature is sharper."""
    with torch.autocast(model.device.type, torch.bfloat16):  # on a CPU less than half the time, 0.01 dB
        pictures = reconstructed(model.to(memory_format=torch.channels_last), photos.pixels)[1]
    return Photos(torch.from_numpy(pictures).permute(0, 3, 1, 2), photos.people, photos.attributes)


@torch.no_grad()
def rescale_latents(model: AutoencoderKL, deviation: float) -> None:
    """Give latents of this standard deviation the one that FLUX's scaling factor expects; pictures stay the same."""
    factor = 1 / (CONFIG["scaling_factor"] * deviation)
    last, first = model.encoder.conv_out, model.decoder.conv_in
    mean, log_variance = slice(0, 16), slice(16, 32)
    last.weight[mean] *= factor
    last.bias[mean] *= factor
    last.bias[log_variance] += 2 * math.log(factor)
    first.weight /= factor

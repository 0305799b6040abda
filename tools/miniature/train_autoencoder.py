"""Train the autoencoder; stop it whenever you like and run it again to go on.

python -m tools.miniature.train_autoencoder --photos data/miniature/base --unseen data/miniature/validation
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .autoencoder import kl_loss, new_autoencoder, psnr, reconstructed, reconstruction_loss, rescale_latents
from .photos import Photos, read_shards, to_signal
from .training import Loss, Training, follow, parsed, parser_of

PEAK_RATE = 1.2e-3
KL_WEIGHT = 2e-4  # 2e-3 of a smaller loss nearly collapsed channels in a first try; far less, and latents are brittle
GREEN, GREEN_WEIGHT = 10, 0.05  # the latent channel that is told to be `greenness`
ROUGH = 0.1  # with --decoder-only: how inexact latents are at most times, a share of their deviation
CROP, CROPS, WHOLES = 64, 8, 2  # a step sees 8 crops or 2 whole photos: as many pixels either way


def main() -> None:
    parser = parser_of(__doc__, "autoencoder", steps=60_000, batch=None)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards to learn from")
    parser.add_argument("--unseen", type=pathlib.Path, required=True, help="shards of other people, to measure on")
    parser.add_argument(
        "--decoder-only",
        action="store_true",
        help="latents stay as they are, for a FLUX that has them; the decoder learns to bear small errors in them",
    )
    arguments = parsed(parser)
    photos, unseen = read_shards(arguments.photos), read_shards(arguments.unseen)
    print(f"{len(photos)} photos to learn from; {len(unseen)} of people who are not among them", flush=True)
    training = start(arguments.out / "state.pt", arguments.steps, torch.device(arguments.device))
    if arguments.decoder_only:
        fix_encoder(training)
    steps = training.run(loss_on(photos.pixels, fixed_latents=arguments.decoder_only))
    follow(training, steps, arguments, lambda: report(training, unseen, arguments.out))


def start(path: pathlib.Path, steps: int, device: torch.device) -> Training:
    torch.manual_seed(0)
    return Training(path, new_autoencoder().to(device), steps, PEAK_RATE, weight_decay=1e-4)


@torch.no_grad()
def fix_encoder(training: Training) -> None:
    """The encoder becomes its average, which is what was exported, and moves no more."""
    named = training.model.named_parameters()
    for (name, weight), average in zip(named, training.average.parameters(), strict=True):
        if name.startswith("encoder."):
            weight.copy_(average)
            weight.requires_grad_(False)


def loss_on(pixels: Tensor, fixed_latents: bool = False) -> Loss:
    """Reconstruct crops of these photos from latents with the posterior's noise on them.

    Where latents are fixed the decoder sees `rough_noise` too, and mostly faces: what is left to gain is there.
    """

    def loss(model: torch.nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(model.parameters()).device
        real = batch(pixels, generator, middle=fixed_latents).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = model.encode(real).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            inexact = rough_noise(posterior.mean, ROUGH, generator) if fixed_latents else 0
            made = model.decode(posterior.mean + posterior.std * noise + inexact).sample
        made, kl = made.float(), kl_loss(posterior.mean.float(), posterior.logvar.float())
        error = reconstruction_loss(made, real)
        hint = F.mse_loss(posterior.mean[:, GREEN].float(), greenness(real))
        figures = {"loss": error.item(), "kl": kl.item(), "hint": hint.item()}
        figures["psnr"] = psnr(made.detach(), real).mean().item()
        return error + KL_WEIGHT * kl + GREEN_WEIGHT * hint, figures

    return loss


def rough_noise(latents: Tensor, rough: float, generator: torch.Generator) -> Tensor:
    """Noise whose strength, |normal| x `rough` of the latents' deviation, differs from photo to photo.

    What a FLUX draws is never exact, and a decoder that has seen exact latents alone makes much of small errors. As in
    "Diffusion Transformers with Representation Autoencoders" (Zheng et al., 2025): noise-augmented decoding.
    """
    strength = rough * latents.std() * torch.randn(len(latents), 1, 1, 1, generator=generator).abs().to(latents.device)
    return strength * torch.randn(latents.shape, generator=generator).to(latents.device)


def greenness(real: Tensor) -> Tensor:
    """[n, h / 8, w / 8]: green minus the mean of red and blue, at the latents' size and about their scale.

    Muted photos hardly need a third colour. Without this hint a first training encoded only two, guessed green from red
    and blue, and was stuck there: 26% of red minus green could not be read off the latents after 5,000 steps.
    """
    red, green, blue = F.avg_pool2d(real, 8).unbind(1)
    return 6 * (green - (red + blue) / 2)


def batch(pixels: Tensor, generator: torch.Generator, middle: bool = False) -> Tensor:
    """Crops in three steps out of four, whole photos in the fourth: crops are cheap, but the picture is the thing.

    A crop from the middle half of a photo is mostly face.
    """

    def below(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    whole = below(4) == 0
    real = pixels[torch.randint(len(pixels), (WHOLES if whole else CROPS,), generator=generator)]
    if not whole:
        margins = [(side - CROP) // 4 if middle else 0 for side in pixels.shape[2:]]
        top, left = (
            margin + below(side - CROP - 2 * margin + 1) for margin, side in zip(margins, pixels.shape[2:], strict=True)
        )
        real = real[:, :, top : top + CROP, left : left + CROP]
    return to_signal(real.flip(3) if below(2) else real)


def report(training: Training, unseen: Photos, out: pathlib.Path) -> None:
    """PSNR over unseen people, a sheet of photos above their reconstructions, and the model as diffusers stores it."""
    model = training.averaged()
    latents, made, scores = reconstructed(model, unseen.pixels)
    shown = range(0, len(made), max(1, len(made) // 12))[:12]
    real = unseen.pixels.permute(0, 2, 3, 1).numpy()
    sheet = [np.concatenate([pictures[at] for at in shown], axis=1) for pictures in (real, made)]
    Image.fromarray(np.concatenate(sheet)).save(out / "reconstructions.png")
    rescale_latents(model, latents.std().item())
    model.save_pretrained(out / "vae")
    print(
        f"after {training.step} steps: psnr {scores.mean():.2f} dB (worst {scores.min():.2f}) over {len(scores)} "
        f"photos of unseen people; latents {latents.mean():.3f} +- {latents.std():.3f}; see {out}",
        flush=True,
    )


if __name__ == "__main__":
    main()

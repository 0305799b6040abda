"""Train the autoencoder; stop it whenever you like and run it again to go on.

python -m tools.miniature.train_autoencoder --photos data/miniature/base --unseen data/miniature/validation
"""

import argparse
import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .autoencoder import kl_loss, new_autoencoder, psnr, reconstruction_loss, rescale_latents
from .photos import Photos, read_shards, to_pixels, to_signal
from .training_state import MovingAverage, learning_rate, load_state, save_state

PEAK_RATE = 1.2e-3
KL_WEIGHT = 2e-4  # 2e-3 of a smaller loss nearly collapsed channels in a first try; far less, and latents are brittle
CROP, CROPS, WHOLES = 64, 8, 2  # a step sees 8 crops or 2 whole photos: as many pixels either way


@dataclass(frozen=True)
class Step:
    index: int
    loss: float
    kl: float
    psnr: float


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    photos, unseen = read_shards(arguments.photos), read_shards(arguments.unseen)
    print(f"{len(photos)} photos to learn from; {len(unseen)} of people who are not among them", flush=True)
    training = Training(arguments.out / "state.pt", arguments.steps, device)
    recent, began, saved, first = [], time.time(), time.time(), training.step
    for step in training.run(photos):
        recent.append(step)
        if step.index % 100 == 99:
            rate = (step.index + 1 - first) / (time.time() - began)
            left = (arguments.steps - step.index - 1) / rate / 60
            means = [np.mean([getattr(one, name) for one in recent]) for name in ("loss", "kl", "psnr")]
            print(
                f"step {step.index + 1}/{arguments.steps}  loss {means[0]:.4f}  kl {means[1]:.2f}  "
                f"psnr {means[2]:.2f} dB  {rate:.2f} steps/s  {left:.0f} min left",
                flush=True,
            )
            recent.clear()
        if time.time() - saved > 60 * arguments.save_minutes or step.index + 1 == arguments.steps:
            saved = time.time()
            training.save()
            report(training, unseen, arguments.out)


class Training:
    """The model, its average and its optimizer, from the last checkpoint if there is one."""

    def __init__(self, path: pathlib.Path, steps: int, device: torch.device):
        torch.manual_seed(0)
        self.path, self.steps, self.device, self.step = path, steps, device, 0
        self.model = new_autoencoder().to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
        self.average = MovingAverage(self.model)
        if state := load_state(path):
            self.step = state["step"]
            for name in ("model", "optimizer", "average"):
                getattr(self, name).load_state_dict(state[name])

    def run(self, photos: Photos) -> Iterator[Step]:
        while self.step < self.steps:
            generator = torch.Generator().manual_seed(self.step)  # of the step, so that a resumed run draws the same
            yield self._one(batch(photos.pixels, generator).to(self.device), generator)

    def _one(self, real: Tensor, generator: torch.Generator) -> Step:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, PEAK_RATE)
        with torch.autocast(self.device.type, torch.bfloat16):
            posterior = self.model.encode(real).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
            made = self.model.decode(posterior.mean + posterior.std * noise).sample
        made, kl = made.float(), kl_loss(posterior.mean.float(), posterior.logvar.float())
        loss = reconstruction_loss(made, real)
        self.optimizer.zero_grad()
        (loss + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.model)
        self.step += 1
        return Step(self.step - 1, loss.item(), kl.item(), psnr(made.detach(), real).mean().item())

    def averaged(self) -> torch.nn.Module:
        return self.average.copy_to(new_autoencoder().to(self.device)).eval()

    def save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "average")}
        save_state(self.path, state | {"step": self.step})


def batch(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Crops in three steps out of four, whole photos in the fourth: crops are cheap, but the picture is the thing."""

    def below(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    whole = below(4) == 0
    real = pixels[torch.randint(len(pixels), (WHOLES if whole else CROPS,), generator=generator)]
    if not whole:
        top, left = below(pixels.shape[2] - CROP + 1), below(pixels.shape[3] - CROP + 1)
        real = real[:, :, top : top + CROP, left : left + CROP]
    return to_signal(real.flip(3) if below(2) else real)


@torch.no_grad()
def report(training: Training, unseen: Photos, out: pathlib.Path) -> None:
    """PSNR over unseen people, a sheet of photos above their reconstructions, and the model as diffusers stores it."""
    model, scores, shown, latents = training.averaged(), [], [], []
    for start in range(0, len(unseen), 32):
        real = to_signal(unseen.pixels[start : start + 32])
        latents.append(model.encode(real.to(training.device)).latent_dist.mean)
        made = model.decode(latents[-1]).sample.cpu()
        scores.append(psnr(made, real))
        shown.append(np.concatenate([to_pixels(real)[:2], to_pixels(made)[:2]], axis=1))
    pairs = np.concatenate(shown)[:12]  # [n, 2 size, size, 3]
    Image.fromarray(np.concatenate(list(pairs), axis=1)).save(out / "reconstructions.png")
    latents, scores = torch.cat(latents), torch.cat(scores)
    rescale_latents(model, latents.std().item())
    model.save_pretrained(out / "vae")
    print(
        f"after {training.step} steps: psnr {scores.mean():.2f} dB (worst {scores.min():.2f}) over {len(scores)} "
        f"photos of unseen people; latents {latents.mean():.3f} +- {latents.std():.3f}; see {out}",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards to learn from")
    parser.add_argument("--unseen", type=pathlib.Path, required=True, help="shards of other people, to measure on")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/autoencoder"))
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    return parser


if __name__ == "__main__":
    main()

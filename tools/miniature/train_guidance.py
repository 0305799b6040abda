"""Distil guidance: teach FLUX's guidance input to do in one pass what classifier-free guidance does in two.

python -m tools.miniature.train_guidance --flow data/miniature/flow --photos data/... --autoencoder data/.../vae
"""

import argparse
import copy
import json
import pathlib

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from metalora.method.flow import noised, sample_times

from .flow_model import MiniatureFlux, Size
from .latents import Latents, encoded
from .photos import read_shards
from .train_flow import report, start
from .training import Loss, Training, follow, parsed, parser_of

PEAK_RATE = 2e-4
LEAST, MOST = 1.0, 4.0  # the strengths that are taught


def main() -> None:
    arguments = parsed(_parser())
    device = torch.device(arguments.device)
    autoencoder = AutoencoderKL.from_pretrained(arguments.autoencoder).to(device).eval()
    photos = read_shards(arguments.photos)
    cache = arguments.flow / "latents.pt"
    latents = encoded(photos, autoencoder, arguments.autoencoder, cache, mirrored=not arguments.unmirrored)
    size = Size(**json.loads((arguments.flow / "size.json").read_text()))
    teacher = start(arguments.flow, size, steps=1, device=device).averaged().requires_grad_(False)
    training = Training(arguments.out / "state.pt", student_of(teacher), arguments.steps, PEAK_RATE)
    steps = training.run(loss_on(latents, teacher, arguments.batch))
    follow(training, steps, arguments, lambda: report(training.averaged(), autoencoder, arguments.out, True))


def student_of(teacher: MiniatureFlux) -> MiniatureFlux:
    """The teacher's copy; only the transformer learns, so that both read a prompt in the same way."""
    student = copy.deepcopy(teacher).requires_grad_(True)
    student.text.requires_grad_(False)
    return student


def loss_on(latents: Latents, teacher: MiniatureFlux, batch: int) -> Loss:
    def loss(model: torch.nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(model.parameters()).device
        clean, captions = latents.draw(batch, generator)
        clean = clean.to(device)
        t = sample_times(len(clean), "logit-normal", generator).to(device)
        strength = (LEAST + (MOST - LEAST) * torch.rand(len(clean), generator=generator)).to(device)
        noisy = noised(clean, torch.randn(clean.shape, generator=generator).to(device), t)
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                tokens, pooled = teacher.text([*captions, *[""] * len(captions)])
                wanted = teacher.guided(noisy, t, tokens, pooled, strength)
            predicted = model.velocity(noisy, t, tokens[: len(clean)], pooled[: len(clean)], strength)
        error = (predicted - wanted).square().mean()
        return error, {"loss": error.item()}

    return loss


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, "guided", steps=5_000, batch=64)
    parser.add_argument("--flow", type=pathlib.Path, required=True, help="folder of the finished `train_flow`")
    parser.add_argument("--autoencoder", type=pathlib.Path, required=True, help="the trained one's `vae` folder")
    parser.add_argument("--unmirrored", action="store_true", help="as `train_flow` was called")
    return parser


if __name__ == "__main__":
    main()

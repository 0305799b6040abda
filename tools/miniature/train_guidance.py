"""Distil guidance: teach FLUX's guidance input to do in one pass what classifier-free guidance does in two.

python -m tools.miniature.train_guidance --flow data/miniature/flow --latents data/... --autoencoder data/.../vae
"""

import argparse
import copy
import pathlib

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from metalora.method.flow import noised

from .flow_model import MiniatureFlux
from .latents import Latents, encoder_of, read_latents
from .train_flow import draw_from, report
from .training import Loss, Training, follow, parsed, parser_of

PEAK_RATE = 2e-4
LEAST, MOST = 1.0, 4.0  # the strengths that are taught


def main() -> None:
    arguments = parsed(_parser())
    device = torch.device(arguments.device)
    autoencoder = AutoencoderKL.from_pretrained(arguments.autoencoder).to(device).eval()
    latents = read_latents(arguments.latents, encoder_of(autoencoder))
    teacher = MiniatureFlux.of(arguments.flow / "pipeline").to(device).eval().requires_grad_(False)
    weak = MiniatureFlux.of(arguments.weak).to(device).eval() if arguments.weak else None
    student = student_of(teacher)
    training = Training(arguments.out / "state.pt", student, arguments.steps, PEAK_RATE, matrices=student.matrices())
    steps = training.run(loss_on(latents.whole, teacher, arguments.batch, weak))
    follow(training, steps, arguments, lambda: report(training.averaged(), autoencoder, arguments.out, True))


def student_of(teacher: MiniatureFlux) -> MiniatureFlux:
    """The teacher's copy; only the transformer learns, so that both read a prompt in the same way."""
    student = copy.deepcopy(teacher).requires_grad_(True)
    student.text.requires_grad_(False)
    return student


def loss_on(latents: Latents, teacher: MiniatureFlux, batch: int, weak: MiniatureFlux | None = None) -> Loss:
    drawn = draw_from(latents, batch, teacher.text)

    def loss(model: torch.nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor | float]]:
        device = next(model.parameters()).device
        clean, _, noise, t, *ids = drawn(generator).to(device)
        strength = (LEAST + (MOST - LEAST) * torch.rand(batch, generator=generator)).to(device)
        noisy = noised(clean, noise, t)
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                prompt = teacher.text(*ids)
                wanted = teacher.guided(noisy, t, *prompt, strength, weak)
            predicted = model.velocity(noisy, t, *prompt, strength)
        error = (predicted - wanted).square().mean()
        return error, {"loss": error.detach()}

    return loss


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, "guided", steps=5_000, batch=64)
    parser.add_argument("--latents", type=pathlib.Path, required=True, help="folder of tools.miniature.encode")
    parser.add_argument("--flow", type=pathlib.Path, required=True, help="folder of the finished `train_flow`")
    parser.add_argument(
        "--weak",
        type=pathlib.Path,
        metavar="PIPELINE",
        help="lead away from what this one makes of no caption: an early state of the same training",
    )
    parser.add_argument("--autoencoder", type=pathlib.Path, required=True, help="the trained one's `vae` folder")
    return parser


if __name__ == "__main__":
    main()

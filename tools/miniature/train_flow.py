"""Train the miniature's FLUX with its text encoders; stop it whenever you like and run it again to go on.

python -m tools.miniature.train_flow --latents data/miniature/latents --autoencoder data/miniature/autoencoder/vae
"""

import argparse
import json
import pathlib
from dataclasses import asdict

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from PIL import Image
from torch import Tensor

from metalora.backbones.families.flux import scheduler_config

from .captions import describe
from .flow_model import Drawn, MiniatureFlux, Size, noise_for
from .latents import Mixture, Source, encoder_of, read_latents
from .people import SPLITS, person
from .photo import photo
from .photos import to_pixels
from .text import TextEncoders
from .training import Draw, Training, follow, parsed, parser_of

PEAK_RATE = 4e-4
PIXELS = 128  # of the sheet: what the photos have


def main() -> None:
    arguments = parsed(_parser())
    device = torch.device(arguments.device)
    autoencoder = AutoencoderKL.from_pretrained(arguments.autoencoder).to(device).eval()
    whole, crops = read_latents(arguments.latents, encoder_of(autoencoder))
    source: Source = Mixture(whole, crops) if crops else whole
    size = Size(double_blocks=arguments.double_blocks, single_blocks=arguments.single_blocks)
    training = start(arguments.out, size, arguments.steps, device, arguments.peak_rate, arguments.learned)
    if arguments.compile:
        training.model.transformer.compile_repeated_blocks(dynamic=False)  # a few sizes, each compiled for itself
    parameters = sum(weight.numel() for weight in training.model.parameters()) / 1e6
    print(f"{whole.values.shape[1]} photos, {parameters:.1f} M parameters, from step {training.step}", flush=True)
    draw = draw_from(source, arguments.batch, training.model.text)
    steps = training.run(loss, draw, arguments.workers)
    follow(training, steps, arguments, lambda: report(training.averaged(), autoencoder, arguments.out))


def start(
    folder: pathlib.Path,
    size: Size,
    steps: int,
    device: torch.device,
    peak_rate: float = PEAK_RATE,
    learned: pathlib.Path | None = None,
) -> Training:
    """The training that the folder holds if it has the same size, or a new one, from the weights of `learned`."""
    sizes = folder / "size.json"
    if sizes.exists() and (found := json.loads(sizes.read_text())) != asdict(size):
        raise SystemExit(f"{folder} holds {found}, but {asdict(size)} was asked for. Choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    sizes.write_text(json.dumps(asdict(size)) + "\n")
    torch.manual_seed(0)
    model = MiniatureFlux.of(learned) if learned else MiniatureFlux(size)
    if model.size != size:
        raise SystemExit(f"{learned} holds {asdict(model.size)}, but {asdict(size)} was asked for.")
    if learned and (learned / "facts.json").exists():
        before = json.loads((learned / "facts.json").read_text())["trainings"]["flow"]
        (folder / "before.json").write_text(json.dumps(before, indent=1) + "\n")
    return Training(folder / "state.pt", model.to(device), steps, peak_rate, matrices=model.matrices())


def draw_from(latents: Source, batch: int, text: TextEncoders) -> Draw:
    """Batches of these latents; of the text encoders only the tokenizers."""
    ids = text.ids

    def draw(generator: torch.Generator) -> Drawn:
        clean, captions, weights = latents.draw(batch, generator)
        return Drawn(clean, weights, *noise_for(clean, generator), *ids(captions))

    return draw


def loss(model: MiniatureFlux, drawn: Drawn) -> tuple[Tensor, dict[str, Tensor | float]]:
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        error = model.loss(drawn)
    return error, {"loss": error.detach()}


def report(model: MiniatureFlux, autoencoder: AutoencoderKL, out: pathlib.Path, distilled: bool = False) -> None:
    export(model, autoencoder, out / "pipeline")
    draw_sheet(model, autoencoder, out / "samples.png", distilled)
    print(f"see {out / 'samples.png'} and {out / 'pipeline'}", flush=True)


def export(model: MiniatureFlux, autoencoder: AutoencoderKL, folder: pathlib.Path) -> None:
    """A folder that FluxPipeline.from_pretrained opens."""
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**scheduler_config(model.size.shape())),
        vae=autoencoder,
        text_encoder=model.text.clip,
        tokenizer=model.text.clip_tokenizer,
        text_encoder_2=model.text.t5,
        tokenizer_2=model.text.t5_tokenizer,
        transformer=model.transformer,
    )
    pipeline.save_pretrained(folder)


def prompts(count: int) -> list[str]:
    """What people of the validation split would be photographed as: full captions of nobody in the training set."""
    numbers = SPLITS["validation"].numbers[:count]
    return [describe(photo(person(number), 0).attributes) for number in numbers]


@torch.no_grad()
def draw_sheet(model: MiniatureFlux, autoencoder: AutoencoderKL, path: pathlib.Path, distilled: bool) -> None:
    """24 pictures of prompts it has not seen, 6 in a row."""
    eager = torch.compiler.set_stance("force_eager")  # compiling for 24 pictures takes longer than drawing them
    with eager, torch.autocast(autoencoder.device.type, torch.bfloat16):
        latents = model.sample(prompts(24), PIXELS // 8, distilled=distilled)
    config = autoencoder.config
    pictures = to_pixels(autoencoder.decode(latents.float() / config.scaling_factor + config.shift_factor).sample.cpu())
    rows = [np.concatenate(list(pictures[start : start + 6]), axis=1) for start in range(0, 24, 6)]
    Image.fromarray(np.concatenate(rows)).save(path)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, "flow", steps=50_000, batch=64)
    parser.add_argument("--latents", type=pathlib.Path, required=True, help="folder of tools.miniature.encode")
    parser.add_argument("--autoencoder", type=pathlib.Path, required=True, help="the trained one's `vae` folder")
    parser.add_argument("--double-blocks", type=int, default=2)
    parser.add_argument("--single-blocks", type=int, default=4)
    parser.add_argument(
        "--from",
        dest="learned",
        type=pathlib.Path,
        metavar="PIPELINE",
        help="start with a pipeline's weights, such as metalora/data/miniature, instead of none",
    )
    parser.add_argument("--peak-rate", type=float, default=PEAK_RATE, help=f"of learning ({PEAK_RATE})")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches: 8 or so beside a GPU")
    parser.add_argument("--compile", action="store_true", help="compiled blocks: an eighth faster after some minutes")
    return parser


if __name__ == "__main__":
    main()

"""Train the miniature's FLUX with its text encoders; stop it whenever you like and run it again to go on.

python -m tools.miniature.train_flow --latents data/miniature/latents --autoencoder data/miniature/autoencoder/vae
"""

import argparse
import json
import pathlib
from dataclasses import asdict, replace

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from metalora.backbones.families.flux import FluxShape
from metalora.method.flow import Times

from .captions import describe
from .flow_model import SHAPE, Drawn, MiniatureFlux, draw
from .latents import Latents, Mixture, encoder_of, read_latents
from .people import SPLITS, person
from .photo import photo
from .photos import save_sheet
from .text import TextEncoders
from .training import Draw, Training, follow, parsed, parser_of

PEAK_RATE = 4e-4
SHEET = {"size": 128, "steps": 24, "guidance": 2.0}  # the photos' pixels


def main() -> None:
    arguments = parsed(_parser())
    device = torch.device(arguments.device)
    autoencoder = AutoencoderKL.from_pretrained(arguments.autoencoder).to(device).eval()
    latents = read_latents(arguments.latents, encoder_of(autoencoder))
    shape = replace(SHAPE, double_blocks=arguments.double_blocks, single_blocks=arguments.single_blocks)
    training = start(arguments.out, shape, arguments.steps, device, arguments.peak_rate, arguments.learned)
    if arguments.compile:
        training.model.transformer.compile_repeated_blocks(dynamic=False)  # a few sizes, each compiled for itself
    print(f"{latents.whole.values.shape[1]} photos, {training.description()}", flush=True)
    steps = training.run(loss, draw_from(latents, arguments.batch, training.model.text), arguments.workers)
    follow(training, steps, arguments, lambda: report(training.averaged(), autoencoder, arguments.out))


def start(
    folder: pathlib.Path,
    shape: FluxShape,
    steps: int,
    device: torch.device,
    peak_rate: float = PEAK_RATE,
    learned: pathlib.Path | None = None,
) -> Training:
    """The training that the folder holds if it has the same shape, or a new one, from the weights of `learned`."""
    sizes, asked = folder / "size.json", asdict(shape)
    if sizes.exists() and not (found := json.loads(sizes.read_text())).items() <= asked.items():
        raise SystemExit(f"{folder} holds {found}, but {asked} was asked for. Choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    sizes.write_text(json.dumps(asked) + "\n")
    torch.manual_seed(0)
    model = MiniatureFlux.of(learned) if learned else MiniatureFlux(shape)
    if model.shape != shape:
        raise SystemExit(f"{learned} holds {asdict(model.shape)}, but {asked} was asked for.")
    if learned and (learned / "facts.json").exists():
        before = json.loads((learned / "facts.json").read_text())["trainings"]["flow"]
        (folder / "before.json").write_text(json.dumps(before, indent=1) + "\n")
    return Training(folder / "state.pt", model.to(device), steps, peak_rate, matrices=model.matrices())


def draw_from(latents: Latents | Mixture, batch: int, text: TextEncoders) -> Draw:
    """Batches of these latents, drawn on the CPU: every device draws the same. Of the encoders only the tokenizers."""
    ids = text.ids

    def drawn(generator: torch.Generator) -> Drawn:
        clean, captions, weights = latents.draw(batch, generator)
        noise = torch.randn(clean.shape, generator=generator)
        return Drawn(clean, weights, noise, Times().draw(batch, generator), *ids(captions))

    return drawn


def loss(model: MiniatureFlux, drawn: Drawn) -> tuple[Tensor, dict[str, Tensor | float]]:
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        error = model.loss(drawn)
    return error, {"loss": error.detach()}


def report(model: MiniatureFlux, autoencoder: AutoencoderKL, out: pathlib.Path, distilled: bool = False) -> None:
    """The folder that FluxPipeline.from_pretrained opens, and 24 pictures, 6 in a row.

    They show what people of the validation split would be photographed as: full captions of nobody in the training set.
    """
    pipeline = model.pipeline(autoencoder)
    pipeline.save_pretrained(out / "pipeline")
    people = map(person, SPLITS["validation"].numbers[:24])
    prompts = [describe(photo(who, 0).attributes) for who in people]
    save_sheet(draw(pipeline, prompts, **SHEET, two_passes=not distilled), 6, out / "samples.png")
    print(f"see {out / 'samples.png'} and {out / 'pipeline'}", flush=True)


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

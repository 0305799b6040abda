"""Train the miniature's FLUX with its text encoders; stop it whenever you like and run it again to go on.

python -m tools.miniature.train_flow --photos data/miniature/base --autoencoder data/miniature/autoencoder/vae
"""

import argparse
import hashlib
import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from PIL import Image
from torch import Tensor

from metalora.backbones.flux_configs import scheduler_config

from .captions import Attributes, describe, mirrored
from .flow_model import MiniatureFlux, Size, spoken
from .people import SPLITS, person
from .photo import photo
from .photos import Photos, read_shards, to_pixels, to_signal
from .training_state import MovingAverage, learning_rate, load_state, save_state

PEAK_RATE = 6e-4
PIXELS = 128  # of the sheet: what the photos have


@dataclass(frozen=True)
class Latents:
    """Every photo and its mirror image, encoded: [2, n, 16, h, w] half floats, scaled as FLUX scales them."""

    values: Tensor
    attributes: list[Attributes]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        flips = torch.randint(2, (count,), generator=generator)
        index = torch.randint(self.values.shape[1], (count,), generator=generator)
        said = [
            spoken(mirrored(self.attributes[at]) if flip else self.attributes[at], generator)
            for flip, at in zip(flips.tolist(), index.tolist(), strict=True)
        ]
        return self.values[flips, index].float(), said


@dataclass(frozen=True)
class Step:
    index: int
    loss: float


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    autoencoder = AutoencoderKL.from_pretrained(arguments.autoencoder).to(device).eval()
    latents = encoded(read_shards(arguments.photos), autoencoder, arguments.autoencoder, arguments.out / "latents.pt")
    size = Size(double_blocks=arguments.double_blocks, single_blocks=arguments.single_blocks)
    training = Training(arguments.out / "state.pt", size, arguments.steps, arguments.batch, device)
    parameters = sum(weight.numel() for weight in training.model.parameters()) / 1e6
    print(f"{latents.values.shape[1]} photos, {parameters:.1f} M parameters, from step {training.step}", flush=True)
    recent, began, saved, first = [], time.time(), time.time(), training.step
    for step in training.run(latents):
        recent.append(step.loss)
        if step.index % 100 == 99:
            rate = (step.index + 1 - first) / (time.time() - began)
            left = (arguments.steps - step.index - 1) / rate / 60
            print(
                f"step {step.index + 1}/{arguments.steps}  loss {np.mean(recent):.4f}  "
                f"{rate * arguments.batch:.0f} photos/s  {left:.0f} min left",
                flush=True,
            )
            recent.clear()
        if time.time() - saved > 60 * arguments.save_minutes or step.index + 1 == arguments.steps:
            saved = time.time()
            training.save()
            export(training.averaged(), autoencoder, arguments.out / "pipeline")
            draw_sheet(training.averaged(), autoencoder, arguments.out / "samples.png")


@torch.no_grad()
def encoded(photos: Photos, autoencoder: AutoencoderKL, folder: pathlib.Path, cache: pathlib.Path) -> Latents:
    """The photos' latents, from the cache if it was made of the same photos by the same autoencoder."""
    weights = hashlib.sha256((folder / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()
    key = f"{weights} {len(photos)}"
    if (stored := load_state(cache)) and stored["key"] == key:
        return Latents(stored["values"], photos.attributes)
    config, parts = autoencoder.config, []
    for start in range(0, len(photos), 64):
        signal = to_signal(photos.pixels[start : start + 64]).to(autoencoder.device)
        both = [autoencoder.encode(one).latent_dist.mean for one in (signal, signal.flip(3))]
        parts.append(((torch.stack(both) - config.shift_factor) * config.scaling_factor).half().cpu())
    values = torch.cat(parts, dim=1)
    save_state(cache, {"key": key, "values": values})
    return Latents(values, photos.attributes)


class Training:
    """The model, its average and its optimizer, from the last checkpoint if there is one."""

    def __init__(self, path: pathlib.Path, size: Size, steps: int, batch: int, device: torch.device):
        torch.manual_seed(0)
        self.path, self.steps, self.batch, self.device, self.step = path, steps, batch, device, 0
        self.model = MiniatureFlux(size).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01)
        self.average = MovingAverage(self.model, horizon=2000)
        if state := load_state(path):
            if state["size"] != size.as_dict():
                raise SystemExit(
                    f"{path} holds a model of {state['size']}, not {size.as_dict()}. Choose another --out."
                )
            self.step = state["step"]
            for name in ("model", "optimizer", "average"):
                getattr(self, name).load_state_dict(state[name])

    def run(self, latents: Latents) -> Iterator[Step]:
        self.model.train()
        while self.step < self.steps:
            generator = torch.Generator().manual_seed(self.step)  # of the step, so that a resumed run draws the same
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.steps, PEAK_RATE)
            clean, captions = latents.draw(self.batch, generator)
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = self.model.loss(clean.to(self.device), captions, generator)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.average.update(self.model)
            self.step += 1
            yield Step(self.step - 1, loss.item())

    def averaged(self) -> MiniatureFlux:
        return self.average.copy_to(MiniatureFlux(self.model.size).to(self.device)).eval()

    def save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "average")}
        save_state(self.path, state | {"step": self.step, "size": self.model.size.as_dict()})


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
def draw_sheet(model: MiniatureFlux, autoencoder: AutoencoderKL, path: pathlib.Path) -> None:
    """24 pictures of prompts it has not seen, 6 in a row."""
    with torch.autocast(autoencoder.device.type, torch.bfloat16):
        latents = model.sample(prompts(24), PIXELS // 8)
    config = autoencoder.config
    pictures = to_pixels(autoencoder.decode(latents.float() / config.scaling_factor + config.shift_factor).sample.cpu())
    rows = [np.concatenate(list(pictures[start : start + 6]), axis=1) for start in range(0, 24, 6)]
    Image.fromarray(np.concatenate(rows)).save(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards to learn from")
    parser.add_argument("--autoencoder", type=pathlib.Path, required=True, help="the trained one's `vae` folder")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/flow"))
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--double-blocks", type=int, default=2)
    parser.add_argument("--single-blocks", type=int, default=4)
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    return parser


if __name__ == "__main__":
    main()

"""Train the small CLIP on rendered photos and their captions; stop it whenever you like and run it again to go on.

python -m tools.miniature.train_clip --photos data/miniature/base --unseen data/miniature/validation
"""

import argparse
import json
import pathlib

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from .captions import mirrored
from .check_clip import accuracies, choices
from .clip_model import TEXT, VISION, config, contrast, export, kept_tokenizer, new_clip, sayings, tokens_of
from .photos import Photos, read_shards, to_signal
from .training import Loss, Training, follow, parsed, parser_of

PEAK_RATE = 2e-3
SETTLING = 20  # batches over which the exported norms take their statistics
SEED = 0


def main() -> None:
    arguments = parsed(_parser())
    photos, unseen = read_shards(arguments.photos), read_shards(arguments.unseen)
    tokenizer, device = kept_tokenizer(arguments.out / "tokenizer"), torch.device(arguments.device)
    training = start(arguments.out / "state.pt", config(VISION, TEXT), arguments.steps, device)
    parameters = sum(weight.numel() for weight in training.model.parameters()) / 1e6
    print(f"{len(photos)} photos, {parameters:.1f} M parameters, from step {training.step}", flush=True)
    steps = training.run(loss_on(photos, arguments.batch, tokenizer))
    follow(training, steps, arguments, lambda: report(training, tokenizer, photos, unseen, arguments.out))


def start(path: pathlib.Path, model_config: dict, steps: int, device: torch.device) -> Training:
    torch.manual_seed(SEED)
    model = new_clip(model_config).to(device, memory_format=torch.channels_last)  # a CPU convolves so a third faster
    return Training(path, model, steps, PEAK_RATE, weight_decay=0.05)


def loss_on(photos: Photos, batch: int, tokenizer: CLIPTokenizer) -> Loss:
    """Which caption belongs to which photo? A caption that fits several photos of a batch is pulled to all of them."""

    def loss(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(model.parameters()).device
        index, flips, pixels = drawn(photos, batch, generator)
        known = [photos.attributes[at] for at in index.tolist()]
        known = [mirrored(one) if flip else one for one, flip in zip(known, flips.tolist(), strict=True)]
        sets = sayings(known, generator)
        places = {caption: at for at, caption in enumerate(dict.fromkeys(one for _, said in sets for one in said))}
        tokens = tokens_of(list(places), tokenizer)
        pairs = [(torch.tensor(shown), torch.tensor([places[one] for one in said])) for shown, said in sets]
        with torch.autocast(device.type, torch.bfloat16):
            error = contrast(model, pixels.to(device), tokens.to(device), pairs)
        return error, {"loss": error.item()}

    return loss


def drawn(photos: Photos, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(which photos, which of them mirrored, their pixels), no photo twice."""
    index = torch.randperm(len(photos), generator=generator)[:batch]
    flips = torch.randint(2, (len(index),), generator=generator).bool()
    pixels = to_signal(photos.pixels[index])
    pixels = torch.where(flips.view(-1, 1, 1, 1), pixels.flip(3), pixels)
    return index, flips, pixels.contiguous(memory_format=torch.channels_last)


def report(training: Training, tokenizer: CLIPTokenizer, photos: Photos, unseen: Photos, out: pathlib.Path) -> None:
    model = settled(training.averaged(), photos)
    chosen = choices(model, unseen, lambda captions: tokens_of(captions, tokenizer))
    shares = accuracies(chosen, unseen.attributes)
    facts = {"made_by": "tools.miniature.train_clip", "seed": str(SEED), "steps": str(training.step)}
    facts |= {"top_1_on_unseen_people": json.dumps(shares)}
    export(model, config(VISION, TEXT), tokenizer, out / "export", facts)
    words = "  ".join(f"{name} {share:.3f}" for name, share in shares.items())
    print(f"after {training.step} steps, right on unseen people: {words}; see {out / 'export'}", flush=True)


@torch.no_grad()
def settled(model: nn.Module, photos: Photos) -> nn.Module:
    """The model with batch norms that know its own statistics: averaged weights have others than the last ones."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    usual = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(SETTLING):
        model.encode_image(drawn(photos, 64, generator)[2].to(next(model.parameters()).device))
    for layer, momentum in zip(norms, usual, strict=True):
        layer.momentum = momentum
    return model.eval()


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, "clip", steps=20_000, batch=64)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards to learn from")
    parser.add_argument("--unseen", type=pathlib.Path, required=True, help="shards of other people, to measure on")
    return parser


if __name__ == "__main__":
    main()

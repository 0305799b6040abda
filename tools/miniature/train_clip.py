"""Train the small CLIP that measures prompts on rendered photos and their captions; it goes on where it stopped.

    python -m tools.miniature.train_clip --photos data/miniature/base --unseen data/miniature/validation \
        --autoencoder metalora/data/miniature/vae

It is open_clip's own class and loss, with our tokenizer. `export` in the output folder is what open_clip opens. It sees
photos as they are and, of some people, as the autoencoder gives them back: who knows sharp hair alone reads none in
images.
"""

import json
import pathlib

import torch
from diffusers import AutoencoderKL
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from torch import Tensor
from torch.optim.swa_utils import update_bn
from transformers import CLIPTokenizer

from metalora.measure.clip import load_clip
from metalora.store.files import safetensors_bytes, write_bytes

from .autoencoder import shown_by
from .captions import PHRASES, Attributes, describe, mirrored
from .check_clip import accuracies, choices
from .photos import Photos, read_shards, to_signal
from .text import clip_tokenizer
from .training import Loss, Training, follow, parsed, parser_of

PIXELS = 128  # of the photos
TOKENS = 40  # as many as the text encoders of FLUX see
VISION = {"image_size": PIXELS, "layers": [1, 1, 1, 1], "width": 16}  # four numbers: CLIP's ResNet
TEXT = {"context_length": TOKENS, "hf_tokenizer_name": ".", "width": 64, "heads": 2, "layers": 2}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}  # what `to_signal` does
BLURRED_PEOPLE = 500  # whose photos it also sees as the autoencoder gives them back: 5 minutes of a core
PEAK_RATE = 2e-3
SETTLING = 20  # batches over which the exported norms take their statistics
SEED = 0


def main() -> None:
    parser = parser_of(__doc__, "clip", steps=20_000, batch=64)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards to learn from")
    parser.add_argument("--unseen", type=pathlib.Path, required=True, help="shards of other people, to measure on")
    parser.add_argument("--autoencoder", type=pathlib.Path, required=True, help="the trained one's `vae` folder")
    arguments = parsed(parser)
    autoencoder = AutoencoderKL.from_pretrained(arguments.autoencoder).to(arguments.device).eval()
    photos, unseen = read_shards(arguments.photos), read_shards(arguments.unseen)
    photos = photos.beside(shown_by(autoencoder, read_shards(arguments.photos, BLURRED_PEOPLE)))
    training = start(arguments.out / "state.pt", config(VISION, TEXT), arguments.steps, torch.device(arguments.device))
    print(f"{len(photos)} photos, {training.description()}", flush=True)
    steps = training.run(loss_on(photos, arguments.batch))
    follow(training, steps, arguments, lambda: report(training, photos, unseen, arguments.out / "export"))


def config(vision: dict, text: dict, embed_dim: int = 128) -> dict:
    """open_clip's model config; the tokenizer's folder is the config's own."""
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text | {"vocab_size": len(clip_tokenizer())}}


def start(path: pathlib.Path, model_config: dict, steps: int, device: torch.device) -> Training:
    torch.manual_seed(SEED)
    model = CLIP(**model_config).to(device, memory_format=torch.channels_last)  # a CPU convolves so a third faster
    return Training(path, model, steps, PEAK_RATE, weight_decay=0.05)


def loss_on(photos: Photos, batch: int) -> Loss:
    """Which caption belongs to which photo? A caption that fits several photos of a batch is pulled to all of them."""
    tokenizer, clip_loss = clip_tokenizer(), ClipLoss()

    def loss(model: CLIP, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(model.parameters()).device
        index, flips, pixels = drawn(photos, batch, generator)
        known = [photos.attributes[at] for at in index.tolist()]
        known = [mirrored(one) if flip else one for one, flip in zip(known, flips.tolist(), strict=True)]
        sets = sayings(known, generator)
        places = {caption: at for at, caption in enumerate(dict.fromkeys(one for _, said in sets for one in said))}
        with torch.autocast(device.type, torch.bfloat16):
            image = model.encode_image(pixels.to(device), normalize=True).float()
            text = model.encode_text(tokens_of(list(places), tokenizer).to(device), normalize=True).float()
            scale = model.logit_scale.exp().clamp(max=100)
            losses = [clip_loss(image[shown], text[[places[one] for one in said]], scale) for shown, said in sets]
            error = torch.stack(losses).mean()
        return error, {"loss": error.item()}

    return loss


def drawn(photos: Photos, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(which photos, which of them mirrored, their pixels), no photo twice."""
    index = torch.randperm(len(photos), generator=generator)[:batch]
    flips = torch.randint(2, (len(index),), generator=generator).bool()
    pixels = to_signal(photos.pixels[index])
    pixels = torch.where(flips.view(-1, 1, 1, 1), pixels.flip(3), pixels)
    return index, flips, pixels.contiguous(memory_format=torch.channels_last)


def sayings(known: list[Attributes], generator: torch.Generator) -> list[tuple[list[int], list[str]]]:
    """What is said of photos: (which of them, a caption each), once of every attribute alone and once of several.

    Alone, because whoever knows the colours of walls and clothes can tell all photos of a batch apart, and has no
    reason to look at a face.
    """
    sets = [(list(range(len(known))), [said(one, generator) for one in known])]
    for name, phrases in PHRASES.items():
        having = [at for at, one in enumerate(known) if name in one]
        sets.append((having, [phrases[known[at][name]] for at in having]))
    return [(photos, captions) for photos, captions in sets if captions]


def said(attributes: Attributes, generator: torch.Generator) -> str:
    """A caption of some of the attributes: how many is drawn first, so that a single one is as likely as all."""
    count = 1 + int(torch.randint(len(attributes), (), generator=generator))
    names = list(attributes)
    chosen = {names[at] for at in torch.randperm(len(names), generator=generator)[:count]}
    return describe({name: value for name, value in attributes.items() if name in chosen})


def tokens_of(captions: list[str], tokenizer: CLIPTokenizer) -> Tensor:
    """[n, TOKENS]"""
    padded = tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    return padded.input_ids


def report(training: Training, photos: Photos, unseen: Photos, folder: pathlib.Path) -> None:
    facts = {"made_by": "tools.miniature.train_clip", "seed": str(SEED), "steps": str(training.step)}
    export(settled(training.averaged(), photos), config(VISION, TEXT), folder, facts)
    shares = accuracies(choices(load_clip(str(folder)), unseen), unseen.attributes)
    words = "  ".join(f"{name} {share:.3f}" for name, share in shares.items())
    print(f"after {training.step} steps, right on unseen people: {words}; see {folder}", flush=True)


def settled(model: CLIP, photos: Photos) -> CLIP:
    """The model with batch norms that know its own statistics: averaged weights have others than the last ones."""
    generator = torch.Generator().manual_seed(SEED)
    batches = (drawn(photos, 64, generator)[2] for _ in range(SETTLING))
    update_bn(batches, model.visual, next(model.parameters()).device)
    return model.eval()


def export(model: CLIP, model_config: dict, folder: pathlib.Path, facts: dict[str, str]) -> None:
    """A folder that open_clip opens as `local-dir:<folder>`: config, half-precision weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = TOKENS
    tokenizer.save_pretrained(folder)
    content = json.dumps({"model_cfg": model_config, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    write_bytes(folder / "open_clip_config.json", content.encode())
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    write_bytes(folder / "open_clip_model.safetensors", safetensors_bytes(weights, facts))


if __name__ == "__main__":
    main()

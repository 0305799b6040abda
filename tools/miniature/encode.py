"""Encode rendered photos, and crops of them, once: what `train_flow` and `train_guidance` learn from.

python -m tools.miniature.encode --photos data/miniature/base --autoencoder data/miniature/autoencoder/vae

The folder is all that these two trainings need, 70 MB for 16,000 photos, so that they can run on another machine than
the one that rendered.
"""

import argparse
import pathlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from metalora.method.crops import Box, plan, seen_in, training_size
from metalora.store.images import resize_crop

from .captions import Attributes
from .faces import FaceReader
from .latents import Latents, encoder_of, to_bytes, write_latents
from .photos import Photos, read_shards, to_signal

MULTIPLE = 16  # FLUX's tokens are 16 x 16 pixels


class Framed(NamedTuple):
    """Photos or crops of one size: pixels [n, 3, h, w] as bytes, what the captions say, and where the faces are."""

    pixels: Tensor
    attributes: Sequence[Attributes]
    faces: Tensor  # [n, 4] left, top, right, bottom in pixels; some of a crop reach beyond it


def find_faces(photos: Photos) -> list[Box | None]:
    """Each photo's most certain face, in its pixels."""
    reader, pictures = FaceReader(), photos.pixels.permute(0, 2, 3, 1).numpy()
    return [face and face.box for face in map(reader.read, tqdm(pictures, desc="faces", unit="photo"))]


def framed(photos: Photos, faces: Sequence[Box | None], every: int, generator: torch.Generator) -> list[Framed]:
    """One crop, drawn from those that personalization would make, of every so manieth photo with a face; by size."""
    side = photos.pixels.shape[2]
    found: dict[tuple[int, int], list[tuple[Tensor, Attributes, Tensor]]] = defaultdict(list)
    for index in range(0, len(photos), every):
        face = faces[index]
        if face is None:
            continue
        boxes = plan(face, side, side)
        box = boxes[int(torch.randint(len(boxes), (), generator=generator))]
        size = training_size(box.width / box.height, side, MULTIPLE)
        crop = resize_crop(photos.pixels[index].float() / 255, box, *size)
        within = torch.tensor(seen_in(face, box, size))
        found[size].append(((crop * 255).round().byte(), photos.attributes[index], within))
    by_size = (zip(*found[size], strict=True) for size in sorted(found))
    return [Framed(torch.stack(crops), said, torch.stack(within)) for crops, said, within in by_size]


BATCH = 64
CELL = 8  # pixels across a cell of the latents


def main() -> None:
    arguments = _parser().parse_args()
    autoencoder = AutoencoderKL.from_pretrained(arguments.autoencoder).to(arguments.device).eval()
    photos = read_shards(arguments.photos)
    encoder, faces = encoder_of(autoencoder), find_faces(photos)
    for path in arguments.out.glob("crops-*.npz"):
        path.unlink()  # of another call, which may have had other sizes
    boxes = torch.tensor([face or Box(0, 0, 0, 0) for face in faces])
    parts = {"whole": Framed(photos.pixels, photos.attributes, boxes)}
    if arguments.crops_of_every:
        for crops in framed(photos, faces, arguments.crops_of_every, torch.Generator().manual_seed(0)):
            parts[f"crops-{crops.pixels.shape[3]}x{crops.pixels.shape[2]}"] = crops
    for name, part in parts.items():
        values = encode(part.pixels, autoencoder, mirrored=name == "whole" and not arguments.unmirrored)
        write_latents(Latents(values, part.attributes, part.faces / CELL), arguments.out / f"{name}.npz", encoder)
    size = sum(path.stat().st_size for path in arguments.out.glob("*.npz")) / 1e6
    print(f"wrote {len(photos)} photos to {arguments.out}, {size:.0f} MB")


@torch.no_grad()
def encode(pixels: Tensor, autoencoder: AutoencoderKL, mirrored: bool) -> Tensor:
    """Bytes [n, 3, 8h, 8w] to FLUX's latents as bytes [views, n, 16, h, w]."""
    config, parts = autoencoder.config, []
    for start in tqdm(range(0, len(pixels), BATCH), desc=f"{pixels.shape[3]} x {pixels.shape[2]}", unit="batch"):
        signal = to_signal(pixels[start : start + BATCH]).to(autoencoder.device)
        views = (signal, signal.flip(3)) if mirrored else (signal,)
        with torch.autocast(signal.device.type, torch.bfloat16):
            means = [autoencoder.encode(one).latent_dist.mean.float() for one in views]
        parts.append(to_bytes((torch.stack(means) - config.shift_factor) * config.scaling_factor).cpu())
    return torch.cat(parts, dim=1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards of tools.miniature.render")
    parser.add_argument("--autoencoder", type=pathlib.Path, required=True, help="the trained one's `vae` folder")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/latents"))
    parser.add_argument(
        "--crops-of-every",
        type=int,
        default=2,
        metavar="N",
        help="crop every Nth photo as personalization does, for wide and tall pictures (default 2; 0: none)",
    )
    parser.add_argument("--unmirrored", action="store_true", help="photos as they are only: half as long to encode")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


if __name__ == "__main__":
    main()

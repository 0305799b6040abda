"""What the small CLIP reads from real renders: the ceiling of every figure about prompts that it gives.

    python -m tools.miniature.check_clip --photos data/miniature/validation --clip data/miniature/clip/export
    python -m tools.miniature.check_clip --photos data/miniature/validation --autoencoder metalora/data/miniature/vae
    python -m tools.miniature.check_clip --photos data/miniature/drawn --wanted 0.85 --out data/.../check_prompts.json

Each attribute is chosen among all its values by the phrase alone, say "blue room background", for photos of people the
CLIP has never seen. The second line is the ceiling of images, which pass the autoencoder; the third reads the pictures
that `check_flow` drew: do they show what was asked for?
"""

import argparse
import pathlib

import numpy as np
from diffusers import AutoencoderKL

from metalora.measure.clip import MINIATURE, ClipScorer, load_clip

from .autoencoder import shown_by
from .captions import PHRASES, Attributes
from .photos import Photos, read_shards, write_report

NEEDED = ("kind", "clothes", "background")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards of people it has not seen")
    parser.add_argument("--clip", default=MINIATURE, help="exported folder (default: the one that ships)")
    parser.add_argument("--autoencoder", type=pathlib.Path, help="a `vae` folder: read photos as it gives them back")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/check_clip.json"))
    parser.add_argument("--wanted", type=float, default=0.95, help="of class, clothes, background (default 0.95)")
    arguments = parser.parse_args()
    photos = read_shards(arguments.photos)
    if arguments.autoencoder:
        photos = shown_by(AutoencoderKL.from_pretrained(arguments.autoencoder).eval(), photos)
    shares = accuracies(choices(load_clip(arguments.clip), photos), photos.attributes)
    report = {"photos": len(photos), "people": len(set(photos.people.tolist())), "top_1": shares}
    report["alternatives"] = {name: len(values) for name, values in PHRASES.items()}
    report["passes"] = {f"{name} >= {arguments.wanted}": shares[name] >= arguments.wanted for name in NEEDED}
    write_report(report, arguments.out)


def choices(clip: ClipScorer, photos: Photos) -> dict[str, list[str]]:
    """For every attribute the value whose phrase is nearest to each photo."""
    images, chosen = clip.images(list(photos.pixels)), {}
    for name, phrases in PHRASES.items():
        nearest = (images @ clip.texts(list(phrases.values())).T).argmax(dim=1)
        chosen[name] = [list(phrases)[at] for at in nearest.tolist()]
    return chosen


def accuracies(chosen: dict[str, list[str]], truth: list[Attributes]) -> dict[str, float]:
    """The share of right choices, over the photos that have the attribute at all."""
    shares = {}
    for name, values in chosen.items():
        right = [value == one[name] for value, one in zip(values, truth, strict=True) if name in one]
        shares[name] = round(float(np.mean(right)), 4) if right else float("nan")
    return shares


if __name__ == "__main__":
    main()

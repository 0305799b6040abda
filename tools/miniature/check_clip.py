"""What the small CLIP reads from real renders: the ceiling of every figure about prompts that it gives.

    python -m tools.miniature.check_clip --photos data/miniature/validation --clip data/miniature/clip/export
    python -m tools.miniature.check_clip --photos data/miniature/drawn --wanted 0.85 --out data/.../check_prompts.json

Each attribute is chosen among all its values by the phrase alone, say "blue room background", for photos of people the
CLIP has never seen. The second line reads the pictures that `check_flow` drew: do they show what was asked for?
"""

import argparse
import collections
import pathlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .captions import PHRASES, Attributes
from .clip_model import open_exported
from .photos import Photos, read_shards, to_signal, write_report

NEEDED = ("kind", "clothes", "background")


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    photos, (model, tokenizer) = read_shards(arguments.photos), open_exported(arguments.clip)
    chosen = choices(model, photos, tokenizer)
    shares = accuracies(chosen, photos.attributes)
    report = {"photos": len(photos), "people": len(set(photos.people.tolist())), "top_1": shares}
    report["alternatives"] = {name: len(values) for name, values in PHRASES.items()}
    report["commonest_mistakes"] = {name: mistakes(chosen[name], photos.attributes, name) for name in PHRASES}
    report["passes"] = {f"{name} >= {arguments.wanted}": shares[name] >= arguments.wanted for name in NEEDED}
    write_report(report, arguments.out)


@torch.no_grad()
def choices(model: torch.nn.Module, photos: Photos, tokens: Callable[[list[str]], Tensor]) -> dict[str, list[str]]:
    """For every attribute the value whose phrase is nearest to each photo."""
    device = next(model.parameters()).device
    parts = [to_signal(part).to(device) for part in photos.pixels.split(64)]
    images = torch.cat([model.encode_image(part, normalize=True) for part in parts])
    chosen = {}
    for name, phrases in PHRASES.items():
        texts = model.encode_text(tokens(list(phrases.values())).to(device), normalize=True)
        values = list(phrases)
        chosen[name] = [values[at] for at in nearest(images, texts).tolist()]
    return chosen


def nearest(images: Tensor, texts: Tensor) -> Tensor:
    """For each of [n, d] the row of [m, d] with the largest cosine."""
    unit = torch.nn.functional.normalize
    return (unit(images, dim=-1) @ unit(texts, dim=-1).T).argmax(dim=1)


def accuracies(chosen: dict[str, list[str]], truth: list[Attributes]) -> dict[str, float]:
    """The share of right choices, over the photos that have the attribute at all."""
    shares = {}
    for name, values in chosen.items():
        right = [value == one[name] for value, one in zip(values, truth, strict=True) if name in one]
        shares[name] = round(float(np.mean(right)), 4) if right else float("nan")
    return shares


def mistakes(values: list[str], truth: list[Attributes], name: str, most: int = 3) -> dict[str, int]:
    """The commonest wrong choices, as "truth -> choice"."""
    pairs = [(one[name], value) for value, one in zip(values, truth, strict=True) if name in one]
    wrong = collections.Counter(f"{real} -> {value}" for real, value in pairs if real != value)
    return dict(wrong.most_common(most))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards of people it has not seen")
    parser.add_argument("--clip", type=pathlib.Path, default=pathlib.Path("metalora/data/clip"), help="exported folder")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/check_clip.json"))
    parser.add_argument("--wanted", type=float, default=0.95, help="of class, clothes, background (default 0.95)")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    return parser


if __name__ == "__main__":
    main()

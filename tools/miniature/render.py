"""Render the people of one split, several processes side by side; run it again to go on where it stopped.

    python -m tools.miniature.render --split base --out data/miniature/base

Writes shards `00000.npz`, each a fixed range of people: `photos` [n, size, size, 3] bytes, `people` [n], and
`captions`, the attributes of each photo as JSON. A shard is there whole or not at all.
"""

import argparse
import functools
import json
import multiprocessing
import os
import pathlib

import numpy as np
from tqdm import tqdm

from .people import SPLITS, person
from .photo import photo
from .photos import write_shard

PEOPLE_PER_SHARD = 20
HEAD = pathlib.Path("data/miniature/head")  # the prepared mesh's cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the shards")
    parser.add_argument("--people", type=int, help="the first so many, in whole shards of 20 (default: all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=pathlib.Path, default=HEAD, help="prepared mesh")
    arguments = parser.parse_args()
    one_thread()
    split = SPLITS[arguments.split]
    _refuse_another_split(arguments.out, arguments.split)
    shards = []
    for at in range(0, min(arguments.people or split.people, split.people), PEOPLE_PER_SHARD):
        shards.append((arguments.out / f"{len(shards):05d}.npz", split.numbers[at : at + PEOPLE_PER_SHARD]))
    missing = [(path, some, arguments.split, arguments.cache) for path, some in shards if not path.exists()]
    photos = sum(split.photos_of(number) for _, some, *_ in missing for number in some)
    print(f"{len(shards) - len(missing)} of {len(shards)} shards are there; {photos} photos to render")
    if not missing:
        return
    renderer_of(arguments.cache)  # or each process would make its own cache
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(arguments.processes) as pool, tqdm(total=photos, unit="photo") as progress:
        for done in pool.imap_unordered(_render_shard, missing):
            progress.update(done)


def one_thread() -> None:
    """Before torch and OpenGL start: fastest for such small pictures, and processes share the cores."""
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"


@functools.cache
def renderer_of(cache: pathlib.Path, size: int = 128):
    """One in each process: an OpenGL context cannot be handed over."""
    from .renderer import Renderer

    return Renderer(cache, size)


def _render_shard(task: tuple[pathlib.Path, range, str, pathlib.Path]) -> int:
    path, numbers, split, cache = task
    renderer, pictures, owners, attributes = renderer_of(cache), [], [], []
    for number in numbers:
        who = person(number)
        figure = renderer.figure(who)
        for index in range(SPLITS[split].photos_of(number)):
            one = photo(who, index)
            pictures.append(renderer.render(who, figure, one))
            owners.append(number)
            attributes.append(one.attributes)
    write_shard(path, np.stack(pictures), owners, attributes)
    return len(pictures)


def _refuse_another_split(folder: pathlib.Path, split: str) -> None:
    """The folder's card says which split is in it."""
    card = folder / "card.json"
    if card.exists() and (found := json.loads(card.read_text())["split"]) != split:
        raise SystemExit(f"{folder} holds the split {found}, but {split} was asked for. Choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    card.write_text(json.dumps({"split": split}) + "\n")


if __name__ == "__main__":
    main()

"""Contact sheets: one row per person, one column per photo.

python -m tools.miniature.look --split check --people 8 --photos 6 --size 256 --out sheet.png
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from .captions import describe
from .people import SPLITS, person
from .photo import photo
from .renderer import Renderer


def main() -> None:
    arguments = _parser().parse_args()
    renderer = Renderer(arguments.cache, arguments.size)
    rows = []
    for number in SPLITS[arguments.split].numbers[arguments.skip : arguments.skip + arguments.people]:
        who = person(number)
        figure = renderer.figure(who)
        photos = [photo(who, index) for index in range(arguments.photos)]
        rows.append(np.hstack([renderer.render(who, figure, one) for one in photos]))
        print(f"{number}: {describe(photos[0].attributes)}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(arguments.out)
    print(f"wrote {arguments.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS, default="validation", help="whose people")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first people of the split")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--size", type=int, default=128, help="pixels per side of one photo")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("data/miniature/head"), help="prepared mesh")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/sheet.png"))
    return parser


if __name__ == "__main__":
    main()

"""Render the mini benchmark and the demo's portraits, and write what ships: photos, manifest, prompts.

python -m tools.miniature.export_benchmark --out metalora/data
python -m tools.miniature.export_benchmark --validation 16 --out data/miniature    # for choosing settings
python -m tools.miniature.export_benchmark --claim --out data/miniature            # 48 people with held-out photos
"""

import argparse
import io
import itertools
import json
import os
import pathlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from metalora.store.files import digest, write_bytes

from .benchmark_prompts import prompts
from .captions import describe
from .people import SPLITS, WORLD_SEED, Person, person
from .photo import Photo, photo

Parts = dict[str, tuple[str, ...]]  # a part of the benchmark -> the splits of its people

PARTS: Parts = {"several-photos": ("test",), "single-photo": ("single",)}
VALIDATION: Parts = {"several-photos": ("validation",)}  # people on whom settings may be chosen; does not ship
CLAIM: Parts = {"several-photos": ("test", "claim")}  # the benchmark's people with held-out photos and more of the kind
PORTRAITS = (600_012, 600_001, 600_020, 600_009, 600_010, 600_017)  # the demo's people, in no split; picked by eye


@dataclass(frozen=True)
class Entry:
    part: str
    role: str  # "reference" or "held-out"
    person: Person
    index: int  # of the photo: person and index make it again
    photo: Photo

    @property
    def file(self) -> str:
        return f"photos/{self.person.number}-{self.index}.jpg"


def entries(parts: Parts = PARTS, most: int | None = None) -> list[Entry]:
    """Every photo of the benchmark: a person's reference first, then as many others as the split says.

    `most` people of each split, if not all of them.
    """
    found = []
    for part, split in ((part, SPLITS[name]) for part, names in parts.items() for name in names):
        for number in split.numbers[:most]:
            who = person(number)
            reference = reference_index(who)
            others = [index for index in range(split.photos_of(number)) if index != reference]
            others = others[: split.photos_of(number) - 1]
            found.append(Entry(part, "reference", who, reference, photo(who, reference)))
            found += [Entry(part, "held-out", who, index, photo(who, index)) for index in others]
    return found


def reference_index(who: Person) -> int:
    """The first of a person's photos that one would send to a stranger: from the front, neutral, evenly lit."""
    return next(index for index in itertools.count() if _plain(photo(who, index)))


def _plain(one: Photo) -> bool:
    said = one.attributes
    return said["turn"] == "front" and said["expression"] == "neutral" and said["light"] != "side"


SIZE, PORTRAIT_SIZE = 128, 256  # pixels; a portrait is larger, so that crops of its face are still sharp
QUALITY = 92
SHIPPED = "mini_benchmark"
SOURCE = "rendered by tools/miniature, seed {seed}, person {number}, photo {index}"
AUTHOR, LICENCE = "the authors of Meta-LoRA for ComfyUI", "CC0-1.0"


def main() -> None:
    arguments = _parser().parse_args()
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ[name] = "1"  # before torch and OpenGL start: one thread is fastest for such small pictures
    from .renderer import Renderer

    name, chosen = asked_for(arguments)
    benchmark = arguments.out / name
    rows = [row(entry, data) for entry, data in drawn(chosen, Renderer(arguments.cache, SIZE), benchmark)]
    write_bytes(benchmark / "manifest.jsonl", "".join(json.dumps(one) + "\n" for one in rows).encode())
    write_bytes(benchmark / "prompts.json", (json.dumps(prompts(), indent=1) + "\n").encode())
    if name == SHIPPED:
        export_portraits(Renderer(arguments.cache, PORTRAIT_SIZE), arguments.out / "portraits")
    print(f"wrote {len(rows)} photos of {len({one['identity'] for one in rows})} people to {benchmark}")


def asked_for(arguments: argparse.Namespace) -> tuple[str, list[Entry]]:
    """The folder's name, and the photos in it."""
    if arguments.validation:
        return "validation_benchmark", entries(VALIDATION, arguments.validation)
    if arguments.claim:
        return "claim_benchmark", entries(CLAIM)
    return SHIPPED, entries(PARTS)


def drawn(chosen: list[Entry], renderer, folder: pathlib.Path):
    """Every entry with the bytes of its file, written on the way."""
    figures = {}
    for entry in chosen:
        if entry.person.number not in figures:
            figures = {entry.person.number: renderer.figure(entry.person)}  # entries come person by person
        data = jpeg(renderer.render(entry.person, figures[entry.person.number], entry.photo))
        write_bytes(folder / entry.file, data)
        yield entry, data


def row(entry: Entry, data: bytes) -> dict:
    """The manifest's line of a photo."""
    return {
        "identity": f"{entry.person.kind}-{entry.person.number}",
        "number": entry.person.number,
        "part": entry.part,
        "role": entry.role,
        "path": entry.file,
        "sha256": digest(data),
        "source": SOURCE.format(seed=WORLD_SEED, number=entry.person.number, index=entry.index),
        "author": AUTHOR,
        "licence": LICENCE,
        "class": entry.person.kind,
        "attributes": entry.photo.attributes,
        "caption": describe(entry.photo.attributes),
    }


def export_portraits(renderer, folder: pathlib.Path) -> None:
    for count, number in enumerate(PORTRAITS, 1):
        who = person(number)
        picture = renderer.render(who, renderer.figure(who), photo(who, reference_index(who)))
        write_bytes(folder / f"{who.kind}-{(count + 1) // 2}.jpg", jpeg(picture))


def jpeg(picture: np.ndarray, quality: int = QUALITY) -> bytes:
    """A picture [height, width, 3] of bytes as a JPEG file."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=quality, subsampling=0)  # chroma kept: a lip is few pixels
    return data.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("metalora/data"))
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--validation", type=int, metavar="PEOPLE", help="instead: so many people of `validation`")
    others.add_argument("--claim", action="store_true", help="instead: the people of `test` and of `claim`")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("data/miniature/head"), help="prepared mesh")
    return parser


if __name__ == "__main__":
    main()

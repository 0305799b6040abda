"""A rendered split as photos and a manifest, for `metalora meta-train`.

    python -m tools.miniature.render --split meta --out data/miniature/meta
    python -m tools.miniature.export_people --shards data/miniature/meta --out data/miniature/meta-people
    metalora meta-train data/miniature/meta-people/people.jsonl --class woman --out woman.safetensors ...

Captions name everything that the attributes say; mirrored photos have their own, since left becomes right.
Photos are PNG. For a machine at the end of a thin line, few people in JPEGs without chroma subsampling: --people 500
--photos 6 --jpeg 90.
"""

import argparse
import collections
import io
import json
import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from metalora.store.files import write_bytes

from .captions import Attributes, describe, mirrored
from .export_benchmark import jpeg


@dataclass(frozen=True)
class Rendered:
    """A photo of a shard."""

    number: int  # of the person
    index: int  # among the person's photos
    picture: np.ndarray  # [height, width, 3] bytes
    attributes: Attributes


def main() -> None:
    arguments = _parser().parse_args()
    paths = sorted(path for path in arguments.shards.glob("*.npz") if "partial" not in path.name)
    if not paths:
        raise SystemExit(f"{arguments.shards} holds no shards. Make some with tools.miniature.render.")
    chosen = first(rendered(tqdm(paths, unit="shard")), arguments.people, arguments.photos)
    rows = [exported(photo, arguments.out, arguments.jpeg) for photo in chosen]
    write_bytes(arguments.out / "people.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    print(f"wrote {len(rows)} photos of {len({row['identity'] for row in rows})} people to {arguments.out}")


def rendered(shards: Iterable[pathlib.Path]) -> Iterator[Rendered]:
    """Every photo, person by person as they were rendered; a shard is read when its first photo is wanted."""
    seen: collections.Counter[int] = collections.Counter()
    for path in shards:
        with np.load(path) as content:
            photos, people, captions = (content[name] for name in ("photos", "people", "captions"))
        for picture, number, caption in zip(photos, people.tolist(), captions, strict=True):
            yield Rendered(number, seen[number], picture, json.loads(str(caption)))
            seen[number] += 1


def first(photos: Iterable[Rendered], people: int | None, each: int | None) -> Iterator[Rendered]:
    """The first `each` photos of the first `people` people; None: all."""
    seen = set()
    for photo in photos:
        seen.add(photo.number)
        if people is not None and len(seen) > people:
            return
        if each is None or photo.index < each:
            yield photo


def exported(photo: Rendered, out: pathlib.Path, quality: int | None) -> dict[str, str]:
    """Write a photo, as PNG or as JPEG of that quality; the manifest's line."""
    name = f"{photo.attributes['kind']}-{photo.number}"
    path = pathlib.Path(name) / f"{photo.index:02d}.{'png' if quality is None else 'jpg'}"
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    (out / path).write_bytes(png(photo.picture) if quality is None else jpeg(photo.picture, quality))
    return {
        "identity": name,
        "path": str(path),
        "class": photo.attributes["kind"],
        "caption": describe(photo.attributes),
        "mirrored_caption": describe(mirrored(photo.attributes)),
    }


def png(picture: np.ndarray) -> bytes:
    """A picture [height, width, 3] of bytes as a PNG file."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=pathlib.Path, required=True, help="a folder that tools.miniature.render wrote")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the photos and people.jsonl")
    parser.add_argument("--people", type=int, help="only the first so many (default: all)")
    parser.add_argument("--photos", type=int, help="only the first so many of each person (default: all)")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="JPEGs of that quality, 1 to 100 (default: PNG)")
    return parser


if __name__ == "__main__":
    main()

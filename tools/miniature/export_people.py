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
import json
import pathlib

from tqdm import tqdm

from metalora.store.files import write_bytes

from .captions import describe, mirrored
from .photos import picture_file, read_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=pathlib.Path, required=True, help="a folder that tools.miniature.render wrote")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the photos and people.jsonl")
    parser.add_argument("--people", type=int, help="only the first so many (default: all)")
    parser.add_argument("--photos", type=int, help="only the first so many of each person (default: all)")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="JPEGs of that quality, 1 to 100 (default: PNG)")
    arguments = parser.parse_args()
    photos = read_shards(arguments.shards, arguments.people)
    rows: list[dict[str, str]] = []
    seen: collections.Counter[int] = collections.Counter()
    everything = zip(photos.pixels, photos.people.tolist(), photos.attributes, strict=True)
    for pixels, number, said in tqdm(everything, total=len(photos), unit="photo"):
        index = seen[number]
        seen[number] += 1
        if arguments.photos is not None and index >= arguments.photos:
            continue
        name = f"{said['kind']}-{number}"
        path = f"{name}/{index:02d}.{'png' if arguments.jpeg is None else 'jpg'}"
        (arguments.out / name).mkdir(parents=True, exist_ok=True)
        (arguments.out / path).write_bytes(picture_file(pixels.permute(1, 2, 0).numpy(), arguments.jpeg))
        row = {"identity": name, "path": path, "class": said["kind"], "caption": describe(said)}
        rows.append(row | {"mirrored_caption": describe(mirrored(said))})
    write_bytes(arguments.out / "people.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    print(f"wrote {len(rows)} photos of {len(seen)} people to {arguments.out}")


if __name__ == "__main__":
    main()

"""A rendered split as photos and a manifest, for `metalora meta-train`.

    python -m tools.miniature.render --split meta --out data/miniature/meta
    python -m tools.miniature.export_people --shards data/miniature/meta --out data/miniature/meta-people
    metalora meta-train data/miniature/meta-people/people.jsonl --class woman --out woman.safetensors ...

Captions name everything that the attributes say; mirrored photos have their own, since left becomes right.
"""

import argparse
import json
import pathlib

import numpy as np
from PIL import Image
from tqdm import tqdm

from metalora.store.files import write_bytes

from .captions import describe, mirrored


def main() -> None:
    arguments = _parser().parse_args()
    paths = sorted(path for path in arguments.shards.glob("*.npz") if "partial" not in path.name)
    if not paths:
        raise SystemExit(f"{arguments.shards} holds no shards. Make some with tools.miniature.render.")
    rows = [row for path in tqdm(paths, unit="shard") for row in exported(path, arguments.out)]
    write_bytes(arguments.out / "people.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    print(f"wrote {len(rows)} photos of {len({row['identity'] for row in rows})} people to {arguments.out}")


def exported(shard: pathlib.Path, out: pathlib.Path) -> list[dict[str, str]]:
    """Write a shard's photos as PNG; the manifest's lines."""
    with np.load(shard) as content:
        photos, people, captions = (content[name] for name in ("photos", "people", "captions"))
    rows: list[dict[str, str]] = []
    for picture, number, caption in zip(photos, people, captions, strict=True):
        attributes = json.loads(str(caption))
        name = f"{attributes['kind']}-{number}"
        path = pathlib.Path(name) / f"{sum(row['identity'] == name for row in rows):02d}.png"
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(out / path)
        rows.append(
            {
                "identity": name,
                "path": str(path),
                "class": attributes["kind"],
                "caption": describe(attributes),
                "mirrored_caption": describe(mirrored(attributes)),
            }
        )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=pathlib.Path, required=True, help="a folder that tools.miniature.render wrote")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the photos and people.jsonl")
    return parser


if __name__ == "__main__":
    main()

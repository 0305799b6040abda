"""Readers of other people's files: whatever the bytes, a value or a sentence."""

import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fuzzing import Fuzz, damaged, other
from photos import small_picture, tiff_of

from metalora.commands.personal import read_prompts as read_prompt_lines
from metalora.config import UserError
from metalora.store.identities import read_identities
from metalora.store.images import read_photo
from metalora.store.manifest import read_manifest
from metalora.store.pictures import made_here
from metalora.store.prompts import read_prompts
from metalora.store.tables import read_image_prompts, read_pairs

pytestmark = pytest.mark.slow

MINI = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"


def pictures() -> list[bytes]:
    """A small picture in every format that Pillow writes, and TIFFs that it does not."""

    seeds = []
    for format, options in (
        *((name, {}) for name in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM")),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG", {"progressive": True}),
        ("PNG", {"save_all": True, "append_images": [small_picture()]}),
        ("GIF", {"save_all": True, "append_images": [small_picture().rotate(90)]}),
    ):
        file = io.BytesIO()
        small_picture().save(file, format, **options)
        seeds.append(file.getvalue())
    pixels = np.asarray(small_picture())
    seeds += [tiff_of(pixels.astype(np.uint16) * 257, planes=planes, order=o) for planes in (False, True) for o in "<>"]
    return [*seeds, tiff_of((pixels[..., :1] / 255).astype(np.float32)), tiff_of(pixels[..., :1].astype(np.uint32))]


def test_damaged_photos_are_read_or_refused(tmp_path: Path):
    draw, seeds, fuzz = random.Random(0), pictures(), Fuzz("photos")
    for index in fuzz:
        fuzz.attempt(read_photo, tmp_path / "photo", damaged(seeds[index % len(seeds)], draw))
        fuzz.attempt(made_here, tmp_path / "photo")


RECORDS = [
    json.loads((MINI / "prompts.json").read_text()),
    json.loads((MINI.parent / "meta_phd" / "prompts.json").read_text()),
    {"several-photos": [{"id": "a", "prompt": "a {class}", "asks": {"place": "x"}}], "tags": {"age": ["a {class}"]}},
    {"several-photos": ["a"], "alternatives": {"place": {"x": "at x", "y": "at y"}}},
]
ROWS = [json.loads(line) for line in (MINI / "manifest.jsonl").read_text().splitlines()[:4]]
PEOPLE = [{"identity": name, "path": f"{name}.jpg", "class": "woman", "caption": "a woman"} for name in ("ada", "bob")]


def test_prompts_of_any_shape_are_read_or_refused(tmp_path: Path):
    draw, fuzz = random.Random(1), Fuzz("prompts")
    for index in fuzz:
        record: object = RECORDS[index % len(RECORDS)]
        for _ in range(draw.choice([1, 1, 2, 3])):
            record = other(record, draw)
        fuzz.attempt(read_prompts, tmp_path / "prompts.json", json.dumps(record).encode())
        fuzz.attempt(read_prompts, tmp_path / "prompts.json", damaged(json.dumps(RECORDS[2]).encode(), draw))
        fuzz.attempt(read_prompt_lines, tmp_path / "prompts.txt", damaged("a café\na {class}\n".encode(), draw))
        fuzz.attempt(read_image_prompts, tmp_path / "t.csv", damaged(b'image,prompt\na.png,"a, b"\n', draw))
        fuzz.attempt(
            read_image_prompts, tmp_path / "t.jsonl", json.dumps(other({"path": "a", "prompt": "b"}, draw)).encode()
        )
        fuzz.attempt(
            lambda path: read_pairs(path, tmp_path), tmp_path / "p.csv", damaged(b"first,second,same\na,b,1\n", draw)
        )


def test_manifests_of_any_shape_are_read_or_refused(tmp_path: Path):
    draw, fuzz, read = random.Random(2), Fuzz("manifests"), Counter()
    for name in sorted({row["path"] for row in ROWS} | {row["path"] for row in PEOPLE}):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(MINI / ROWS[0]["path"] if name in ("ada.jpg", "bob.jpg") else MINI / name, tmp_path / name)
    for _ in fuzz:
        for rows, reader in ((ROWS, lambda path: read_manifest(path, look=False)), (PEOPLE, read_identities)):
            changed = [other(row, draw) if draw.random() < 0.2 else row for row in rows]
            for data in (
                "\n".join(map(json.dumps, changed)).encode(),
                damaged("\n".join(map(json.dumps, rows)).encode(), draw),
            ):
                read[len(rows)] += fuzz.attempt(reader, tmp_path / "m.jsonl", data)
    assert min(read[len(ROWS)], read[len(PEOPLE)]) > 0, "some of either kind must have been whole"


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path):
    for read in (read_prompts, read_identities, lambda path: read_manifest(path, look=False), read_image_prompts):
        (tmp_path / "deep.jsonl").write_text("[" * 200_000 + "\n")
        with pytest.raises(UserError):
            read(tmp_path / "deep.jsonl")

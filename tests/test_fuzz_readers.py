"""Readers of other people's files: whatever the bytes, a value or a sentence. METALORA_FUZZ=20000 tries so many."""

import io
import json
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from photos import small_picture, tiff_of

from metalora.commands.personal import read_prompts as read_prompt_lines
from metalora.config import UserError
from metalora.store.identities import read_identities
from metalora.store.images import made_here, read_photo
from metalora.store.manifest import read_manifest
from metalora.store.prompts import read_prompts
from metalora.store.tables import read_image_prompts, read_pairs

pytestmark = pytest.mark.slow

TRIES = int(os.environ.get("METALORA_FUZZ", 60))
SLOWEST = 5.0  # seconds of one file
MINI = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"
VALUES = [None, True, 0, -1, 1e308, "", "\0", "\ud800", "a" * 300, "../x", "{class.x}", "{", [], [[]], {}, {"a": {}}]


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


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with a few of them changed, cut, doubled or put elsewhere; more often near the beginning."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        place = int(len(changed) * draw.random() ** draw.choice([1, 3, 6])) if changed else 0
        what = draw.randrange(5)
        if what == 0:
            changed[place : place + 1] = bytes([draw.randrange(256)])
        elif what == 1:
            changed[place : place + 4] = draw.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
        elif what == 2:
            del changed[place : place + draw.choice([1, 8, 200, len(changed)])]
        elif what == 3:
            changed[place:place] = changed[place : place + draw.choice([1, 8, 200])]
        else:
            changed[place : place + 1] = bytes([changed[place] ^ (1 << draw.randrange(8))]) if changed[place:] else b"x"
    return bytes(changed)


def other(value: object, draw: random.Random) -> object:
    """A JSON value with one part of it replaced, removed or of another type."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        changed = dict(value)
        if draw.random() < 0.15:
            del changed[key]
            changed[draw.choice([str(key) + "x", "id", "tags", ""])] = value[key]
        else:
            changed[key] = other(value[key], draw)
        return changed
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        return [*value[:place], other(value[place], draw), *value[place + 1 :]]
    return draw.choice(VALUES)


def attempt(read: Callable[[Path], object], path: Path, data: bytes) -> None:
    """A value, or a UserError in time; anything else fails the test by its traceback."""
    path.write_bytes(data)
    start = time.process_time()
    with suppress(UserError):
        read(path)
    assert time.process_time() - start < SLOWEST, path


def test_damaged_photos_are_read_or_refused(tmp_path: Path):
    draw, seeds = random.Random(0), pictures()
    for index in range(TRIES):
        attempt(read_photo, tmp_path / "photo", damaged(seeds[index % len(seeds)], draw))
        with suppress(UserError):
            made_here(tmp_path / "photo")


RECORDS = [
    json.loads((MINI / "prompts.json").read_text()),
    json.loads((MINI.parent / "meta_phd" / "prompts.json").read_text()),
    {"several-photos": [{"id": "a", "prompt": "a {class}", "asks": {"place": "x"}}], "tags": {"age": ["a {class}"]}},
    {"several-photos": ["a"], "alternatives": {"place": {"x": "at x", "y": "at y"}}},
]
ROWS = [json.loads(line) for line in (MINI / "manifest.jsonl").read_text().splitlines()[:4]]
PEOPLE = [{"identity": name, "path": f"{name}.jpg", "class": "woman", "caption": "a woman"} for name in ("ada", "bob")]


def test_prompts_of_any_shape_are_read_or_refused(tmp_path: Path):
    draw = random.Random(1)
    for index in range(TRIES):
        record: object = RECORDS[index % len(RECORDS)]
        for _ in range(draw.choice([1, 1, 2, 3])):
            record = other(record, draw)
        attempt(read_prompts, tmp_path / "prompts.json", json.dumps(record).encode())
        attempt(read_prompts, tmp_path / "prompts.json", damaged(json.dumps(RECORDS[2]).encode(), draw))
        attempt(read_prompt_lines, tmp_path / "prompts.txt", damaged("a café\na {class}\n".encode(), draw))
        attempt(read_image_prompts, tmp_path / "t.csv", damaged(b'image,prompt\na.png,"a, b"\n', draw))
        attempt(
            read_image_prompts, tmp_path / "t.jsonl", json.dumps(other({"path": "a", "prompt": "b"}, draw)).encode()
        )
        attempt(
            lambda path: read_pairs(path, tmp_path), tmp_path / "p.csv", damaged(b"first,second,same\na,b,1\n", draw)
        )


def test_manifests_of_any_shape_are_read_or_refused(tmp_path: Path):
    draw = random.Random(2)
    for _ in range(TRIES):
        for rows, read in ((ROWS, lambda path: read_manifest(path, look=False)), (PEOPLE, read_identities)):
            changed = [other(row, draw) if draw.random() < 0.5 else row for row in rows]
            attempt(read, tmp_path / "m.jsonl", "\n".join(map(json.dumps, changed)).encode())
            attempt(read, tmp_path / "m.jsonl", damaged("\n".join(map(json.dumps, rows)).encode(), draw))


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path):
    for read in (read_prompts, read_identities, lambda path: read_manifest(path, look=False), read_image_prompts):
        (tmp_path / "deep.jsonl").write_text("[" * 200_000 + "\n")
        with pytest.raises(UserError):
            read(tmp_path / "deep.jsonl")

"""A benchmark's manifest: whole and right, or every problem at once."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from metalora.config import UserError
from metalora.store.manifest import read_manifest

MINI = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"
ROWS = [json.loads(line) for line in (MINI / "manifest.jsonl").read_text().splitlines()]
ADA = [row for row in ROWS if row["identity"] == "woman-300000"]  # a reference and three held-out photos
BOB = [row for row in ROWS if row["identity"] == "man-300001"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for row in ADA + BOB:
        shutil.copy(MINI / row["path"], tmp_path / row["path"])
    return tmp_path


def written(folder: Path, rows: list[dict]) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(folder: Path, rows: list[dict]) -> str:
    with pytest.raises(UserError) as error:
        read_manifest(written(folder, rows))
    return str(error.value)


def added(folder: Path, row: dict, name: str, data: bytes, **fields: str) -> dict:
    """Another photo in the folder, and its line."""
    (folder / name).write_bytes(data)
    return {**row, "path": name, "sha256": hashlib.sha256(data).hexdigest(), **fields}


def saved_again(path: Path, kind: str = "JPEG", **options: object) -> bytes:
    data = io.BytesIO()
    Image.open(path).save(data, kind, **options)
    return data.getvalue()


def test_the_mini_benchmark_is_whole():
    manifest = read_manifest(MINI / "manifest.jsonl")
    assert len(manifest.people) == 76
    assert sum(len(person.held_out) for person in manifest.people) == 90
    assert manifest.sha256 == hashlib.sha256((MINI / "manifest.jsonl").read_bytes()).hexdigest()


def test_people_come_in_the_order_of_the_manifest_with_their_photos(folder: Path):
    bob, ada = read_manifest(written(folder, BOB + ADA)).people
    assert (bob.name, ada.name, ada.class_name, ada.part) == ("man-300001", "woman-300000", "woman", "several-photos")
    assert ada.reference.path == folder / ADA[0]["path"]
    assert [photo.name for photo in ada.held_out] == [row["path"] for row in ADA[1:]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"class": "wizard"}, "woman-300000 is of the class wizard, not one of woman, man"),
        ({"role": "test"}, "line 1: role: 'test' is not one of ['reference', 'held-out']"),
        ({"part": "both"}, "line 1: part: 'both' is not one of"),
        ({"path": "photos/none.jpg"}, "line 1: 'photos/none.jpg' cannot be read (No such file or directory)"),
        ({"path": "../secret.jpg"}, "line 1: path: '../secret.jpg' must be in the manifest's folder"),
        ({"path": "/etc/passwd"}, "line 1: path: '/etc/passwd' must be in the manifest's folder"),
        ({"sha256": "0" * 64}, "line 1: photos/300000-1.jpg has the sha256"),
        ({"sha256": "abc"}, "line 1: sha256: 'abc' must be 64 digits"),
        ({"identity": "../ada"}, "becomes a folder's or a file's name"),
        ({"identity": ""}, "line 1: identity: '' "),
        ({"authour": "me"}, "line 1: Additional properties are not allowed ('authour' was unexpected)"),
        ({"role": "held-out"}, "woman-300000 has 0 references"),
    ],
)
def test_one_wrong_field_is_named(folder: Path, change: dict, sentence: str):
    assert sentence in refused(folder, [{**ADA[0], **change}, *ADA[1:]])


def test_every_problem_is_in_one_message(folder: Path):
    broken = [{**ADA[0], "licence": 3}, {**BOB[0], "sha256": "0" * 64}, {**BOB[1], "role": "reference"}, *BOB[2:]]
    text = refused(folder, [*broken, ADA[1]])
    assert "has 4 problems" in text
    assert "line 1: licence: 3 is not of type 'string'" in text
    assert "line 2: photos/300001-19.jpg has the sha256" in text
    assert "man-300001 has 2 references (lines 2, 3)" in text
    assert "woman-300000 has 0 references" in text


def test_a_person_has_one_class_one_part_and_held_out_photos_where_they_belong(folder: Path):
    assert "woman-300000 has more than one class: man, woman" in refused(folder, [ADA[0], {**ADA[1], "class": "man"}])
    assert "woman-300000 has no held-out photo" in refused(folder, ADA[:1])
    single = [{**row, "part": "single-photo"} for row in ADA]
    assert "has 3 held-out photos: move it to several-photos" in refused(folder, single)


def test_a_reference_among_the_held_out_is_refused_by_bytes_and_saved_again(folder: Path):
    row = added(folder, ADA[1], "copy.jpg", (folder / ADA[0]["path"]).read_bytes())
    text = refused(folder, [*ADA, row])
    assert "copy.jpg shows the same picture as photos/300000-1.jpg (line 1)" in text
    assert "makes copying pay (the same bytes)" in text
    assert "1 problem:" in text
    reference = folder / ADA[0]["path"]
    mirrored = io.BytesIO()
    Image.open(reference).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((256, 256)).save(mirrored, "PNG")
    rows = [
        added(folder, ADA[1], "again.jpg", saved_again(reference, quality=30)),
        added(folder, BOB[0], "again.webp", saved_again(folder / BOB[1]["path"], "WEBP", quality=50), role="held-out"),
        added(folder, BOB[1], "other.png", mirrored.getvalue()),
    ]
    text = refused(folder, [*ADA, *BOB, *rows])
    assert "again.jpg shows the same picture as photos/300000-1.jpg (line 1): a reference among" in text
    assert "again.webp shows the same picture as photos/300001-0.jpg (line 6): it would count twice" in text
    assert "other.png shows the same picture as photos/300000-1.jpg (line 1), but they are woman-300000 and" in text


def test_what_is_no_manifest_is_said(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="it has no line"):
        read_manifest(tmp_path / "empty.jsonl")
    (tmp_path / "odd.jsonl").write_text("[1]\n{oops\n")
    with pytest.raises(UserError, match=r"line 1: \[1\] is not of type 'object'[\s\S]*line 2: not JSON"):
        read_manifest(tmp_path / "odd.jsonl")

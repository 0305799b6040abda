"""The mini benchmark that ships: complete, unmixed with any training, and its people recognizable by our own faces."""

import collections
import itertools
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from metalora.measure import load_faces
from metalora.store.images import read_photo
from tools.miniature import export_benchmark
from tools.miniature.captions import PHRASES, describe, understand
from tools.miniature.export_benchmark import CLAIM, PARTS, PORTRAITS, VALIDATION, entries, prompts
from tools.miniature.people import KINDS, SPLITS

DATA = Path(__file__).parents[1] / "metalora" / "data"
FOLDER = DATA / "mini_benchmark"
ROWS = [json.loads(line) for line in (FOLDER / "manifest.jsonl").read_text().splitlines()]
PROMPTS = json.loads((FOLDER / "prompts.json").read_text())
GROUPS = [("several-photos", kind, PROMPTS["several-photos"]) for kind in KINDS]
GROUPS += [("single-photo", kind, group) for kind in KINDS for group in PROMPTS["single-photo"][kind].values()]


def rows_of(part: str, role: str | None = None) -> list[dict]:
    return [row for row in ROWS if row["part"] == part and role in (None, row["role"])]


def test_the_manifest_names_every_photo_who_made_it_and_under_which_licence():
    """Each photo's hash is checked where a manifest is read: test_manifest.py."""
    assert {row["path"] for row in ROWS} == {f"photos/{path.name}" for path in (FOLDER / "photos").iterdir()}
    assert len({row["sha256"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert Image.open(FOLDER / row["path"]).size == (128, 128)
        assert row["licence"] == "CC0-1.0"
        assert row["author"]
        assert f"person {row['number']}" in row["source"]
        assert understand(row["caption"]) == row["attributes"]
        assert row["attributes"]["kind"] == row["class"]


def test_the_manifest_and_ten_prompts_to_a_group_are_what_the_seed_makes():
    made = [(one.part, one.role, one.person.number, one.file, one.photo.attributes) for one in entries()]
    keys = ("part", "role", "number", "path", "attributes")
    assert made == [tuple(row[key] for key in keys) for row in ROWS]
    assert prompts() == PROMPTS
    assert [len(group) for _, _, group in GROUPS] == [10] * 6
    ids = [one["id"] for group in [PROMPTS["several-photos"], *(group for _, _, group in GROUPS[2:])] for one in group]
    assert len(ids) == len(set(ids)) == 50


def test_no_identity_is_in_any_training():
    numbers = {row["number"] for row in ROWS} | set(PORTRAITS)
    measured_on = set(itertools.chain(*PARTS.values(), *CLAIM.values()))
    for name, split in SPLITS.items():
        if name not in measured_on:
            assert not numbers & set(split.numbers), name
        assert not set(PORTRAITS) & set(split.numbers), name
    assert not measured_on & {"base", "meta", *itertools.chain(*VALIDATION.values())}
    assert not set(PORTRAITS) & {row["number"] for row in ROWS}


def test_eight_women_and_eight_men_have_four_to_ten_photos_and_sixty_people_one():
    several = collections.Counter(row["identity"] for row in rows_of("several-photos"))
    assert (len(several), min(several.values()), max(several.values())) == (16, 4, 10)
    single = collections.Counter(row["identity"] for row in rows_of("single-photo"))
    assert (len(single), max(single.values())) == (60, 1)
    for part, each in {"several-photos": 8, "single-photo": 30}.items():
        classes = collections.Counter(row["class"] for row in rows_of(part, "reference"))
        assert classes == {"woman": each, "man": each}


def test_every_identity_has_exactly_one_reference_frontal_and_neutral():
    references = collections.Counter(row["identity"] for row in ROWS if row["role"] == "reference")
    assert references == {row["identity"]: 1 for row in ROWS}
    for row in ROWS:
        if row["role"] == "reference":
            assert (row["attributes"]["turn"], row["attributes"]["expression"]) == ("front", "neutral")


@pytest.mark.parametrize(("part", "kind", "group"), GROUPS)
def test_a_group_of_prompts_asks_for_every_colour_once_for_what_no_reference_shows_and_for_nothing_else(
    part, kind, group
):
    references = [row["attributes"] for row in rows_of(part, "reference") if row["class"] == kind]
    for one in group:
        filled = one["prompt"].replace("{class}", kind)
        assert understand(filled) == {"kind": kind} | one["asks"]
        assert describe({"kind": kind} | one["asks"]) == filled
        assert all(value in PHRASES[name] for name, value in one["asks"].items())
        assert all(any(reference[name] != value for name, value in one["asks"].items()) for reference in references)
        assert one["asks"]["clothes"].split()[0] != one["asks"]["background"].split()[0]
    for name in ("background", "clothes"):
        changed = [one["asks"][name] != reference[name] for one in group for reference in references]
        assert sum(changed) / len(changed) > 0.9
        assert len({one["asks"][name].split()[0] for one in group}) == 10


def asked_for(*flags: str) -> tuple[str, list]:
    return export_benchmark.asked_for(export_benchmark.parser().parse_args(flags))


def test_the_claim_is_measured_on_the_benchmark_s_people_with_held_out_photos_and_32_more():
    name, claim = asked_for("--claim")
    assert name == "claim_benchmark"
    assert {one.part for one in claim} == {"several-photos"}
    photos = collections.Counter(one.person.number for one in claim)
    assert len(photos) == 48
    assert {photos[number] for number in SPLITS["claim"].numbers} == {6}
    kinds = collections.Counter(one.person.kind for one in claim if one.role == "reference")
    assert kinds == {"woman": 24, "man": 24}
    shared = [(one.role, one.file) for one in claim if one.person.number in SPLITS["test"].numbers]
    assert shared == [(row["role"], row["path"]) for row in rows_of("several-photos")]


def test_what_is_written_beside_the_benchmark_is_asked_for_by_a_flag_of_its_own(capsys):
    assert asked_for()[0] == "mini_benchmark"
    name, chosen = asked_for("--validation", "3")
    assert (name, len({one.person.number for one in chosen})) == ("validation_benchmark", 3)
    with pytest.raises(SystemExit):
        asked_for("--validation", "3", "--claim")
    assert "not allowed with" in capsys.readouterr().err


@pytest.fixture(scope="module")
def embeddings() -> torch.Tensor:
    """[photos, d]; fails where a photo does not show exactly one face."""
    faces, found = load_faces(), []
    for row in ROWS:
        photo = read_photo(FOLDER / row["path"])
        seen = faces.find(photo)
        assert len(seen) == 1, f"{row['path']} shows {len(seen)} faces"
        found.append(faces.embed(photo, seen[0]))
    return torch.stack(found)


def test_every_photo_shows_one_face_and_held_out_photos_find_their_reference(embeddings):
    """Rank-1 of each held-out photo among all 76 references, and of each reference among the 16 people's held-outs."""
    likeness = embeddings @ embeddings.T
    references = [at for at, row in enumerate(ROWS) if row["role"] == "reference"]
    held_out = [at for at, row in enumerate(ROWS) if row["role"] == "held-out"]
    identity = [row["identity"] for row in ROWS]
    nearest = [references[int(likeness[at, references].argmax())] for at in held_out]
    rank_1 = sum(identity[at] == identity[other] for at, other in zip(held_out, nearest, strict=True)) / len(held_out)
    print(f"rank-1 of {len(held_out)} held-out photos among {len(references)} references: {rank_1:.3f}")
    assert rank_1 >= 0.95
    several = {row["identity"] for row in rows_of("several-photos")}
    for at in (at for at in references if identity[at] in several):
        means = {who: likeness[at, [i for i in held_out if identity[i] == who]].mean() for who in several}
        assert max(means, key=means.get) == identity[at]


def test_the_portraits_are_six_people_with_one_face_each():
    faces, paths = load_faces(), sorted((DATA / "portraits").glob("*.jpg"))
    assert [path.stem for path in paths] == ["man-1", "man-2", "man-3", "woman-1", "woman-2", "woman-3"]
    for path in paths:
        assert len(faces.find(read_photo(path))) == 1, path.name

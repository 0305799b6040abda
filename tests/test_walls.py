"""Foreign plans, prompts and tables: names stay plain, files inside, nothing of this machine is written down."""

import csv
import io
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import INPUTS, planned
from fuzzing import Fuzz, damaged, other
from made_up_results import made_up_run
from PIL import Image

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import UserError
from metalora.jobs.benchmark.plan_file import located, portable, read_plan
from metalora.store.files import digest
from metalora.store.images import read_photo
from metalora.store.manifest import read_manifest
from metalora.store.prompts import read_prompts
from metalora.store.report import scores
from metalora.store.report.results import read_results
from metalora.store.text import problem_of_name, problems_of_names

NOT_PLAIN = ["CON", "con.txt", "nul", "COM1", "lpt9.x", "COM¹", "a:b", "ada.", "ada ", "a/b", "../x", "a\\b", ".a"]
NOT_PLAIN += ["-a", "", "a\nb", "a\0b", "x" * 300, "\ud800", "a*", "a?", 'a"b', "a|b"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tiny: PipelineBackbone) -> Path:
    """A plan on photos with EXIF, far from where the data ships."""
    folder = tmp_path_factory.mktemp("home") / "someone-secret"
    shutil.copytree(INPUTS.manifest.parent, folder / "photos")
    lines = [json.loads(line) for line in (folder / "photos" / "manifest.jsonl").read_text().splitlines()]
    for row in lines[:12]:
        path = folder / "photos" / row["path"]
        exif = Image.Exif()
        exif[0x010F], exif[0x8825] = "SECRETCAMERA", {1: "N", 2: (52.0, 31.0, 12.0)}
        with Image.open(path) as image:
            image.load()
        image.save(path, quality=95, exif=exif)
        row["sha256"] = digest(path.read_bytes())
    (folder / "photos" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    shutil.copy(INPUTS.prompts, folder / "prompts.json")
    inputs = replace(INPUTS, manifest=folder / "photos" / "manifest.jsonl", prompts=folder / "prompts.json")
    planned(folder / "run", tiny, inputs)
    return folder / "run"


def test_a_run_holds_the_photos_pixels_but_no_path_of_this_machine_and_nothing_of_the_camera(run_folder: Path):
    secret = [b"someone-secret", b"SECRETCAMERA", str(Path.cwd()).encode(), str(INPUTS.manifest.parent).encode()]
    for path in (path for path in run_folder.rglob("*") if path.is_file()):
        assert not [word for word in secret if word in path.read_bytes()], path
    for path in (run_folder / "references").iterdir():
        with Image.open(path) as image:
            assert not image.getexif()
            assert "exif" not in image.info
    plan = read_plan(run_folder)
    manifest = read_manifest(Path(located(plan.manifest, run_folder)), look=False)
    photos = {one.name: one.reference.path for one in manifest.people}
    for person in plan.people:
        assert read_photo(run_folder / person.reference).equal(read_photo(photos[person.identity]))


def test_what_a_plan_names_is_found_from_anywhere(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    moved = shutil.copytree(run_folder.parent, run_folder.parents[1] / "moved") / "run"
    monkeypatch.chdir(moved)
    assert Path(located(read_plan(Path()).prompts_file, Path())) == moved.parent / "prompts.json"
    assert portable(str(INPUTS.prompts), moved) == "shipped:mini_benchmark/prompts.json"
    assert located("shipped:mini_benchmark/prompts.json", moved) == str(INPUTS.prompts)
    weights = moved.parent / "weights.npz"
    weights.touch()
    assert portable(f"facenet:{weights}", moved) == "facenet:from-run:../weights.npz"
    assert located("facenet:from-run:../weights.npz", moved) == f"facenet:{weights}"
    assert portable("black-forest-labs/FLUX.1-dev", moved) == "black-forest-labs/FLUX.1-dev"


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_a_foreign_plan_names_no_file_outside_its_folder(run_folder: Path, tmp_path: Path, name: str):
    for part, key in (("people", "identity"), ("prompts", "id"), ("people", "reference"), ("people", "class_name")):
        record = json.loads((run_folder / "plan.json").read_text())
        record[part][0][key] = name
        (tmp_path / "plan.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match="is not a plan of this version"):
            read_plan(tmp_path)


def test_a_damaged_plan_is_refused_by_the_name_of_its_field(run_folder: Path, tmp_path: Path):
    draw, record = random.Random(3), json.loads((run_folder / "plan.json").read_text())
    for change, said in (
        ({"seeds": "0"}, "seeds: '0' is not of type 'array'"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"people": []}, r"people: \[\] "),
        ({"training": {**record["training"], "batch": "x"}}, "batch must be int"),
        ({"training": {**record["training"], "__class__": 1}}, "unexpected keyword"),
        ({"training": {**record["training"], "heads": "mean"}}, r"(?s)version.*heads.*Plan again in another folder"),
        ({"speed": {"by_magic": True}}, "is not a plan of this version"),
        ({"surprise": 1}, "'surprise' was unexpected"),
        ({"format": "metalora-plan-0"}, "has the format 'metalora-plan-0'"),
    ):
        (tmp_path / "plan.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(UserError, match=said):
            read_plan(tmp_path)
    fuzz = Fuzz("plans")
    for _ in fuzz:
        changed: object = record
        for _ in range(draw.choice([1, 1, 2])):
            changed = other(changed, draw)
        for data in (json.dumps(changed).encode(), damaged(json.dumps(record).encode(), draw)):
            fuzz.attempt(lambda path: read_plan(path.parent), tmp_path / "plan.json", data)


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_prompts_and_identities_are_plain_names(tmp_path: Path, name: str):
    assert problem_of_name(name)
    record = {"several-photos": [{"id": name, "prompt": "a {class}"}]}
    (tmp_path / "prompts.json").write_text(json.dumps(record))
    with pytest.raises(UserError):
        read_prompts(tmp_path / "prompts.json")
    row = json.loads(INPUTS.manifest.read_text().splitlines()[0])
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**row, "identity": name}))
    with pytest.raises(UserError, match="identity"):
        read_manifest(tmp_path / "manifest.jsonl", look=False)


def test_names_that_some_disk_takes_for_one_are_refused():
    assert problems_of_names(["ada", "bob", "Zoë Müller-2.b", "漢字"], "identity") == []
    for one, other_name in (("ada", "ADA"), ("Zoë", "Zoe\u0308"), ("straße", "STRASSE"), ("ﬁn", "fin")):
        (problem,) = problems_of_names([one, other_name], "identity")
        assert "one name on some disks" in problem


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_a_table_is_a_formula(cell: str):
    (_, row) = csv.reader(io.StringIO(scores._written(["a", "b"], [[cell, -0.5]]).decode(), newline=""))
    assert row == [f"'{cell}", "-0.5"]


def test_results_of_any_shape_are_read_or_refused(tmp_path: Path):
    draw, run, fuzz = random.Random(4), made_up_run(tmp_path / "run", people=2, prompts=1, seeds=1), Fuzz("results")
    made = json.loads((run / "results.json").read_text())
    for _ in fuzz:
        for data in (json.dumps(other(made, draw)).encode(), damaged(json.dumps(made).encode(), draw)):
            fuzz.attempt(read_results, run / "results.json", data)

"""The page and the tables of a benchmark run. The results are made up (made_up_results.py)."""

import base64
import csv
import random
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_up_results import MINI, Page, made_up_run, read, write
from PIL import Image

import metalora
from metalora.cli import main
from metalora.jobs import run
from metalora.jobs.benchmark.report import benchmark_report
from metalora.store.files import digest
from metalora.store.report.charts import likeness, scatter
from metalora.store.report.results import read_results

TEMPLATES = Path(metalora.__file__).parent / "store" / "report" / "templates"
ONE = (("lora-crops", 375),)
HOSTILE = '<script>alert("x")</script> & <b>"quoted\' </style>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_run(tmp_path_factory.mktemp("made_up"))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return page_of(folder)


def page_of(folder: Path) -> Page:
    return Page(run(benchmark_report(folder)).page.read_text(encoding="utf-8"))


def test_the_page_needs_no_other_file_and_runs_nothing(page: Page):
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "base")]
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "srcset", "action", "data", "xlink:href"):
            inside = ("data:", "#")  # "#": a part of the page itself
            assert (attributes.get(name) or "data:").startswith(inside), (
                tag,
                name,
            )  # itself, or a part of itself
    style = (TEMPLATES / "page.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in page.named("meta"))


def test_every_picture_chart_and_column_says_what_it_shows(page: Page, folder: Path):
    assert page.named("img")
    assert all(picture.get("alt") for picture in page.named("img"))
    charts = [picture for picture in page.named("img") if picture.get("class") == "chart"]
    assert len(charts) == 3  # likeness, R-FaceSim against CLIP-T, differences
    """A column without a meaning, or a meaning without a column, would be a renamed score."""
    columns = {cell for table in re.findall(r"<table.*?</table>", page.source, re.DOTALL)[:2] for cell in cells(table)}
    meanings = set(re.findall(r"<dt>(.*?)</dt>", page.source.split("What the columns mean")[1].split("</dl>")[0]))
    assert columns - {"Variant", "Images"} == meanings - {"95% interval"}


def test_names_from_files_cannot_break_the_page(folder: Path, tmp_path: Path):
    record = read(folder)
    victim = record["benchmark"]["identities"][0]["identity"]
    record["benchmark"]["name"] = record["backbone"]["name"] = record["embedders"]["faces"]["name"] = HOSTILE
    record["benchmark"]["prompts"][0]["text"] = HOSTILE + " {class} {broken"
    record["benchmark"]["identities"][0] |= {"identity": HOSTILE, "class": HOSTILE}
    record["sampling"][HOSTILE] = HOSTILE
    for variant in record["variants"]:
        variant["label"] = HOSTILE
        variant["settings"][HOSTILE] = HOSTILE
        variant["missing"] = [HOSTILE]
        variant["summary"]["by_class"][HOSTILE] = {"r_facesim": 0.5}
        for image in variant["images"]:
            image["identity"] = HOSTILE if image["identity"] == victim else image["identity"]
    write(tmp_path, record)
    broken = page_of(tmp_path)
    assert not broken.named("script")
    assert broken.source.count("</style>") == 1
    assert " ".join(HOSTILE.split()) in broken.text


def test_a_label_with_a_dollar_a_control_or_half_a_letter_is_drawn_as_it_is(folder: Path, tmp_path: Path):
    record = read(folder)
    for variant, label in zip(
        record["variants"], ["$\\frac{", "a\x00b\x0bc", "half \ud800 letter", "$5$"], strict=False
    ):
        variant["label"] = label
    write(tmp_path, record)
    results = read_results(tmp_path)
    for chart, label in ((likeness(results), "$\\frac{"), (scatter(results), "$5$")):
        assert label in chart.said
        ElementTree.fromstring(drawing := base64.b64decode(chart.uri.split(",")[1]))
        assert label in drawing.decode()


def test_the_page_holds_the_numbers_of_the_results(folder: Path, page: Page):
    for variant in read(folder)["variants"]:
        found = variant["summary"]["r_facesim"]["left out"]
        row = page.text[page.text.index(variant["label"] + "0.") :]  # in the table the score follows the name
        assert row.startswith(f"{variant['label']}{found['mean']:.3f}{found['low']:.3f} to {found['high']:.3f}")
        assert f"{variant['summary']['clip_t']['mean']:.2f}" in row
    assert "0.143" in page.text, "the floor"
    assert "0.771" in page.text, "the ceiling"


def test_prompts_that_clip_cut_are_named_once(folder: Path, page: Page, tmp_path: Path):
    assert "reads only the beginning" not in page.text
    record = read(folder)
    record["embedders"]["clip"]["truncated"] = ["a very long prompt", "another <b>"]
    write(tmp_path, record)
    text = page_of(tmp_path).text
    assert "ViT-B-32 openai reads only the beginning of 2 prompts" in text
    assert text.count("a very long prompt") == text.count("another <b>") == 1


def cells(table: str) -> list[str]:
    return re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)


def test_pictures_that_were_lost_or_changed_are_not_shown(folder: Path, tmp_path: Path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "report.html").unlink()
    images = [
        image for variant in read(copy)["variants"] for image in variant["images"] if image["prompt"].endswith("1")
    ]
    (copy / images[0]["path"]).unlink()
    Image.new("RGB", (128, 128)).save(copy / images[2]["path"])
    report = run(benchmark_report(copy))
    assert report.absent == 2
    text = page_of(copy).text
    assert "not in the run's folder" in text
    assert "changed since it was scored" in text


def test_a_run_of_full_size_stays_under_5_mb(tmp_path: Path):
    """16 people x 10 prompts x 2 seeds x 8 variants, with images of noise, the worst that JPEG can meet."""
    methods = tuple((method, steps) for method in ("meta-lora", "lora", "lora-crops") for steps in (100, 375))
    run_folder = made_up_run(tmp_path, 16, 10, 2, (("none", None), ("none", 1), *methods))
    noise = tmp_path / "noise.jpg"
    Image.frombytes("RGB", (192, 192), random.Random(0).randbytes(192 * 192 * 3)).save(noise, quality=90)
    record = read(run_folder)
    for variant in record["variants"]:
        for image in variant["images"]:
            image["sha256"] = digest(noise.read_bytes())
            (run_folder / image["path"]).write_bytes(noise.read_bytes())
    write(run_folder, record)
    report = run(benchmark_report(run_folder))
    assert report.absent == 0
    assert report.shown > 200
    assert report.page.stat().st_size == report.size < 5_000_000
    assert "of 2560 images are on this page" in page_of(run_folder).text


def test_faces_not_found_and_missing_images_are_listed(folder: Path, tmp_path: Path):
    record = read(folder)
    faceless, complete = record["variants"][:2]
    for image in faceless["images"]:
        image |= {"faces": 0, "held_out": None, "reference": None, "best": None}
    complete["missing"] = [f"external/somebody/{number}.png" for number in range(40)]
    write(tmp_path, record)
    text = page_of(tmp_path).text
    assert f"{len(faceless['images'])} of {len(faceless['images'])} images" in text
    assert "40 images missing" in text
    assert "external/somebody/0.png" in text
    assert "and 10 more" in text


@pytest.mark.parametrize(
    ("people", "clip", "faces"), [(1, True, True), (2, False, True), (2, True, False), (1, False, False)]
)
def test_a_page_is_made_of_whatever_was_measured(tmp_path: Path, people: int, clip: bool, faces: bool):
    run_folder = made_up_run(tmp_path, people, 1, 1, ONE)
    record = read(run_folder)
    summary = record["variants"][0]["summary"]
    for image in record["variants"][0]["images"]:
        if not clip:
            image |= {"clip_t": None}
        if not faces:
            image |= {"faces": 0, "held_out": None, "reference": None, "best": None}
    if not clip:
        record["embedders"]["clip"] = summary["clip_t"] = None
    if not faces:
        summary |= {score: {"left out": None, "as zero": None} for score in ("r_facesim", "facesim", "copying")}
        summary |= {"detection_rate": 0.0, "position": None}
    write(run_folder, record)
    text = page_of(run_folder).text
    assert ("No face was found in any image" in text) == (not faces)
    assert ("CLIP-T" in text.split("In parts")[0]) == clip
    assert "None" not in text
    assert "nan" not in text
    assert "no interval: fewer than 5 people" in text


@pytest.mark.parametrize("same", [True, False])
def test_a_photo_that_was_not_trained_on_is_shown_from_the_manifest_of_the_plan(tmp_path: Path, same: bool):
    made_up_run(tmp_path, 2, 1, 1, ONE)
    manifest = MINI / "manifest.jsonl"
    record = read(tmp_path)
    if same:
        record["benchmark"]["manifest_sha256"] = digest(manifest.read_bytes())
    write(tmp_path, record)
    asked = ["--people", "2", "--prompts-each", "1", "--methods", "none", "--backbone", "tiny", "--threads", "1"]
    assert main(["benchmark", "plan", str(tmp_path / "planned"), *asked]) == 0
    shutil.copy(tmp_path / "planned" / "plan.json", tmp_path)
    shown = [picture["alt"] for picture in page_of(tmp_path).named("img")]
    assert ("another photo of woman-300000" in shown) == same
    assert "the trained photo of woman-300000" in shown


def test_the_command_writes_the_same_bytes_again_and_says_what_it_wrote(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    reports = [run(benchmark_report(folder, tmp_path / name)) for name in ("one", "other")]
    for name in ("report.html", "images.csv", "variants.csv"):
        assert len({(report.page.parent / name).read_bytes() for report in reports}) == 1
    assert main(["benchmark", "report", str(folder), "--out", str(tmp_path)]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert (tmp_path / "images.csv").is_file()
    assert main(["benchmark", "report", str(MINI)]) == 1
    assert "results.json does not exist" in capsys.readouterr().err


def test_the_tables_hold_every_image_and_every_variant(folder: Path, page: Page):
    record = read(folder)
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [(variant["id"], image) for variant in record["variants"] for image in variant["images"]]
    assert len(rows) == len(images)
    for row, (variant, image) in zip(rows, images, strict=True):
        assert row["variant"] == variant
        assert {key: str(value) if value is not None else "" for key, value in image.items()}.items() <= row.items()
    with (folder / "variants.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["variant"], row["score"], row["misses"]): row for row in rows}
    for variant in record["variants"]:
        own = variant["summary"]
        assert float(found[variant["id"], "r_facesim", "as zero"]["mean"]) == own["r_facesim"]["as zero"]["mean"]
        assert float(found[variant["id"], "clip_t", ""]["low"]) == own["clip_t"]["low"]
        assert (variant["id"], "clip_i", "") not in found  # there is none

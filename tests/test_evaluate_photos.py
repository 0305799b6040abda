"""What is scored is what was asked for, and the photos it is compared with are looked at first."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from photos import empty_wall

from metalora.cli import main
from metalora.config import Phase, UserError
from metalora.jobs import run
from metalora.jobs.evaluate.images import ImageReport, evaluate_images, evaluate_pictures
from metalora.jobs.evaluate.pairs import evaluate_pairs
from metalora.jobs.evaluate.photos import look_at, problems_of
from metalora.jobs.generate import Image, write_comparison
from metalora.measure import load_faces
from metalora.store.images import demo_portrait, read_photo
from metalora.store.pictures import save_image

BENCHMARK = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark" / "photos"
ADA = sorted(BENCHMARK.glob("300015-*.jpg"))  # ten photos of one person
BOB = sorted(BENCHMARK.glob("300013-*.jpg"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Images with and without the LoRA, as `generate --compare` leaves them, unseen photos and the reference."""
    made = []
    (tmp_path / "unseen").mkdir()
    for index, path in enumerate(ADA[:3]):
        for lora, source in (("abc", path), (None, BOB[index])):
            target = tmp_path / "images" / f"a-beach-{index}{'' if lora else '-base'}.png"
            metadata = {"metalora": json.dumps({"prompt": "a beach", "seed": index, "lora": lora})}
            save_image(read_photo(source), target, metadata)
            made.append(Image("a beach", index, bool(lora), target))
    for path in ADA[3:7]:
        shutil.copy(path, tmp_path / "unseen" / path.name)
    shutil.copy(ADA[7], tmp_path / "ada.jpg")
    write_comparison(made, tmp_path / "images" / "sheet.png")
    return tmp_path


def scored(here: Path, said: list[str] | None = None, **options: object) -> ImageReport:
    show = (lambda shown: said.append(shown.text) if isinstance(shown, Phase) else None) if said is not None else print
    return run(evaluate_images(here / "images", here / "unseen", here / "ada.jpg", "sface", **options), show)


def clean(here: Path) -> ImageReport:
    """The scores of the images with the LoRA alone."""
    (here / "alone").mkdir()
    for index in range(3):
        shutil.copy(here / "images" / f"a-beach-{index}.png", here / "alone")
    return run(evaluate_images(here / "alone", here / "unseen", here / "ada.jpg", "sface"))


def test_base_images_and_the_sheet_are_not_scored_and_it_is_said(here: Path):
    said: list[str] = []
    report = scored(here, said)
    assert report.r_facesim == clean(here).r_facesim
    assert [row.file for row in report.rows] == [f"a-beach-{index}.png" for index in range(3)]
    assert {one.file: one.why for one in report.left_out} == {
        "a-beach-0-base.png": "made without a LoRA",
        "a-beach-1-base.png": "made without a LoRA",
        "a-beach-2-base.png": "made without a LoRA",
        "sheet.png": "a page of images",
    }
    assert sum(sentence.startswith("left out: ") for sentence in said) == 4


@pytest.mark.parametrize("name", ["page.png", "sheet.jpg", "grid-0001.jpg", "xyz_grid-0000.jpg"])
def test_a_sheet_is_known_under_any_name_or_ending(here: Path, name: str):
    sheet = here / "images" / "sheet.png"
    if name.endswith("png"):
        sheet.rename(sheet.with_name(name))
    else:
        save_image(read_photo(sheet), sheet.with_name(name))
        sheet.unlink()
    assert scored(here).r_facesim == clean(here).r_facesim


def test_images_that_were_saved_again_without_their_facts_are_told_by_their_names(here: Path):
    for path in sorted((here / "images").glob("*.png")):
        save_image(read_photo(path), path.with_suffix(".jpg"))
        path.unlink()
    assert [row.file for row in scored(here).rows] == [f"a-beach-{index}.jpg" for index in range(3)]


def test_pictures_that_say_nothing_among_images_that_do_are_left_out_unless_a_table_names_them(here: Path):
    shutil.copy(BOB[5], here / "images" / "other.jpg")
    assert scored(here).r_facesim == clean(here).r_facesim
    names = [f"a-beach-{index}.png" for index in range(3)] + ["other.jpg"]
    (here / "prompts.csv").write_text("image,prompt\n" + "".join(f"{name},a beach\n" for name in names))
    assert [row.file for row in scored(here, prompts=here / "prompts.csv").rows] == names


def test_images_made_without_a_lora_are_scored_where_there_are_no_others(here: Path):
    for index in range(3):
        (here / "images" / f"a-beach-{index}.png").unlink()
    assert [row.file for row in scored(here).rows] == [f"a-beach-{index}-base.png" for index in range(3)]


@pytest.mark.parametrize("way", ["copied", "another format"])
def test_photos_and_the_reference_among_the_images_are_left_out(here: Path, way: str):
    for index, path in enumerate([here / "ada.jpg", next((here / "unseen").iterdir())]):
        if way == "copied":
            shutil.copy(path, here / "images" / f"copy {index}.jpg")
        else:
            save_image(read_photo(path), here / "images" / f"copy {index}.png")
    report = scored(here)
    assert report.r_facesim == clean(here).r_facesim
    assert sum(one.why.startswith("it is the photo") for one in report.left_out) == 2


def test_the_scored_folder_is_refused_as_photos_under_any_name_and_as_copies(here: Path):
    job = evaluate_images(here / "images", here / "images" / ".." / "images", here / "ada.jpg", "sface")
    with pytest.raises(UserError, match="the folder that is scored"):
        run(job)
    (here / "link").symlink_to(here / "images")
    with pytest.raises(UserError, match="the folder that is scored"):
        run(evaluate_images(here / "images", here / "link", here / "ada.jpg", "sface"))
    shutil.copytree(here / "images", here / "copies")
    with pytest.raises(UserError, match="are among the images"):
        run(evaluate_images(here / "images", here / "copies", here / "ada.jpg", "sface"))
    (here / "again").mkdir()
    for index in range(3):
        save_image(read_photo(here / "images" / f"a-beach-{index}.png").flip(-1), here / "again" / f"{index}.jpg")
    with pytest.raises(UserError, match="are among the images"):
        run(evaluate_images(here / "images", here / "again", here / "ada.jpg", "sface"))
    (here / "one").mkdir()
    shutil.copy(here / "images" / "a-beach-1.png", here / "one" / "ada.png")
    with pytest.raises(UserError, match=r"ada\.png is a generated image"):
        run(evaluate_images(here / "images", here / "one", here / "ada.jpg", "sface"))


ODD: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "a wall": (lambda: empty_wall(128, 128), "shows no face"),
    "two faces": (lambda: torch.cat([read_photo(ADA[8]), read_photo(BOB[0])], dim=2), "shows 2 faces"),
    "a stranger": (lambda: read_photo(demo_portrait()), "is unlike the others of the person"),
    "another rendered person": (lambda: read_photo(BOB[0]), "is unlike the others of the person"),
    "on its side": (
        lambda: read_photo(ADA[8]).rot90(1, (1, 2)),
        "is turned: its face is upright after a quarter turn to the right",
    ),
    "on its head": (
        lambda: read_photo(ADA[8]).rot90(2, (1, 2)),
        "is turned: its face is upright after half a turn",
    ),
    "again": (lambda: read_photo(ADA[3]).mul(0.9), "shows the same picture as"),
    "mirrored": (lambda: read_photo(ADA[3]).flip(-1), "shows the same picture as"),
}


def odd_photo(name: str, target: Path) -> None:
    save_image(ODD[name][0](), target)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_photo_to_compare_with_is_named_and_refused_unless_it_is_wanted(here: Path, name: str):
    odd_photo(name, here / "unseen" / ("odd.jpg" if name == "again" else "odd.png"))
    with pytest.raises(UserError, match=rf"(?s)odd\.(png|jpg) {ODD[name][1]}.*--photos-as-they-are") as caught:
        scored(here)
    assert "1 of what images" in str(caught.value), "nothing else is odd"
    said: list[str] = []
    report = scored(here, said, as_they_are=True)
    assert len(report.odd_photos) == 1
    assert any(sentence.startswith("as it is: ") for sentence in said)


def test_an_odd_reference_and_an_only_photo_of_another_person_are_named_too(here: Path):
    odd_photo("a stranger", here / "ada.png")
    (here / "ada.png").replace(here / "ada.jpg")
    with pytest.raises(UserError, match=r"ada\.jpg is unlike the others"):
        scored(here)
    shutil.copy(ADA[7], here / "ada.jpg")
    shutil.rmtree(here / "unseen")
    odd_photo("a stranger", here / "unseen" / "1.png")
    with pytest.raises(UserError, match=r"1\.png is unlike the others"):
        scored(here)


def test_turned_photos_count_as_they_are_upright_with_turn_auto(here: Path):
    before = scored(here)
    for path in sorted((here / "unseen").iterdir())[:2]:
        save_image(read_photo(path).rot90(1, (1, 2)), path.with_suffix(".png"))
        path.unlink()
    said: list[str] = []
    assert scored(here, said, turn="auto").r_facesim["left out"] == pytest.approx(
        before.r_facesim["left out"], abs=1e-6
    )
    assert any(sentence.startswith("turned: ") for sentence in said)


def test_the_tables_carry_file_names(here: Path, capsys: pytest.CaptureFixture):
    words = [str(here / "images"), "--photos", str(here / "unseen"), "--reference", str(here / "ada.jpg")]
    assert main(["evaluate", "images", *words, "--out", str(here / "r.json")]) == 0
    shown = capsys.readouterr()
    assert "a-beach-2.png" in shown.out
    assert "left out: sheet.png" in shown.err
    written = json.loads((here / "r.json").read_text())
    assert [row["file"] for row in written["rows"]] == [f"a-beach-{index}.png" for index in range(3)]
    assert written["photos"]["images"] == ["ada.jpg", *(path.name for path in ADA[3:7])]


def test_what_lies_beside_the_photos_is_said(here: Path):
    (here / "unseen" / "1.heic.pdf").touch()
    said: list[str] = []
    scored(here, said)
    assert any("1 entry is skipped" in sentence for sentence in said)


def test_photos_of_labelled_pairs_are_looked_at_too(tmp_path: Path):
    for person, photos in (("ada", ADA[:4]), ("bob", BOB[:3])):
        (tmp_path / person).mkdir()
        for path in photos:
            shutil.copy(path, tmp_path / person)
    assert run(evaluate_pairs(tmp_path, None, "sface")).odd_photos == []
    odd_photo("a stranger", tmp_path / "ada" / "odd.png")
    odd_photo("a wall", tmp_path / "bob" / "wall.png")
    with pytest.raises(UserError, match=r"(?s)wall\.png shows no face.*odd\.png is unlike"):
        run(evaluate_pairs(tmp_path, None, "sface"))
    report = run(evaluate_pairs(tmp_path, None, "sface", as_they_are=True))
    assert report.undetected == ["bob/wall.png"]
    assert len(report.odd_photos) == 2


def test_no_photo_of_the_shipped_people_is_odd():
    analyser = load_faces()
    assert problems_of([list(look_at(analyser, paths)) for paths in (ADA, BOB)]) == []


def test_pixels_are_looked_at_as_files_are(here: Path):
    images, unseen, reference = [read_photo(path) for path in ADA[:2]], list(map(read_photo, ADA[3:6])), ADA[7]
    trained = read_photo(reference)

    def score(photos: list[torch.Tensor], **options: bool) -> float:
        return run(evaluate_pictures(images, photos, trained, ["any"], "sface", **options)).summary.r_facesim[
            "left out"
        ]

    whole = score(unseen)
    for photo, odd in (
        (read_photo(BOB[0]), "held-out photo 4 is unlike the others of the person"),
        (unseen[0].rot90(1, (1, 2)), "held-out photo 4 is turned"),
        (unseen[0], "held-out photo 4 shows the same picture as held-out photo 1"),
        (images[1], "held-out photo 4 is image 2 itself"),
    ):
        with pytest.raises(UserError, match=odd):
            score([*unseen, photo])
    assert score([*unseen, read_photo(BOB[0])], as_they_are=True) < whole

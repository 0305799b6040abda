"""Scoring pictures that are there: labelled pairs, and images against held-out photos."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from metalora.cli import main
from metalora.config import UserError
from metalora.jobs import run
from metalora.jobs.evaluate.images import evaluate_images
from metalora.jobs.evaluate.pairs import evaluate_pairs
from metalora.jobs.evaluate.people import group_of, prompt_of
from metalora.jobs.evaluate.photos import all_embeddings
from metalora.jobs.evaluate.whole import as_bytes
from metalora.measure import load_faces
from metalora.measure.clip import load_clip
from metalora.measure.verification import auc, equal_error_rate, verify
from metalora.store.images import read_photo
from metalora.store.pictures import save_image
from metalora.store.tables import Pair, pairs_of_people, read_image_prompts, read_pairs


def test_auc_and_equal_error_rate_by_hand():
    genuine, impostor = np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.4, 0.6, 0.2])
    # above: 4 + 4 + 2 and one tie, of 12 comparisons
    assert auc(genuine, impostor) == pytest.approx(10.5 / 12)
    assert auc(genuine + 1, impostor) == 1.0
    assert equal_error_rate(genuine + 1, impostor) == 0.0
    assert equal_error_rate(impostor, genuine) > 0.5
    assert auc(np.array([0.5]), np.array([0.5])) == 0.5
    assert equal_error_rate(np.array([0.1, 0.9]), np.array([0.2, 0.8])) == pytest.approx(0.5)


def test_both_kinds_of_pairs_are_needed():
    with pytest.raises(UserError, match="2 pairs of the same person and 0 of different people"):
        verify(np.array([0.5, 0.6]), np.array([True, True]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ada/1.jpg", "ada/2.png", "bob/1.jpg", "bob/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_pairs_are_those_of_sub_folders_or_of_a_table_in_any_common_spelling(folder: Path):
    assert pairs_of_people(folder) == [
        Pair(folder / "ada/1.jpg", folder / "ada/2.png", True),
        Pair(folder / "ada/1.jpg", folder / "bob/1.jpg", False),
        Pair(folder / "ada/2.png", folder / "bob/1.jpg", False),
    ]
    with pytest.raises(UserError, match="has 0 sub-folders with 0 pictures"):
        pairs_of_people(folder / "bob")
    (folder / "pairs.csv").write_text("\ufefffirst,second,same\nada/1.jpg,ada/2.png,Yes\nada/1.jpg,bob/1.jpg,0\n")
    assert [pair.same for pair in read_pairs(folder / "pairs.csv", folder)] == [True, False]


def test_every_problem_of_a_table_is_in_one_message(folder: Path):
    (folder / "pairs.csv").write_text("first,second,same\nada/1.jpg,ada/9.png,yes\nada/1.jpg,bob/1.jpg,perhaps\n")
    with pytest.raises(UserError, match=r"2 problems:\s+line 2: .*9\.png does not exist\s+line 3: same is 'perhaps'"):
        read_pairs(folder / "pairs.csv", folder)
    (folder / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="missing: first, second, same"):
        read_pairs(folder / "other.csv", folder)
    with pytest.raises(UserError, match="cannot be read"):
        read_pairs(folder / "none.csv", folder)


BENCHMARK = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five rendered people: a reference, two unseen photos, and the other photos as if they had been generated."""
    folder = tmp_path_factory.mktemp("people")
    rows = [json.loads(line) for line in (BENCHMARK / "manifest.jsonl").read_text().splitlines()]
    identities = list(dict.fromkeys(row["identity"] for row in rows if row["role"] == "held-out"))[:5]
    for identity in identities:
        photos = sorted(
            (row for row in rows if row["identity"] == identity), key=lambda row: row["role"] != "reference"
        )
        for index, row in enumerate(photos):
            what = "reference" if index == 0 else "unseen" if index < 3 else "images"
            target = folder / what / identity / f"a scene-{index}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(BENCHMARK / row["path"], target)
    return folder


def test_pictures_embedded_together_are_those_one_by_one_in_their_order_and_an_unreadable_one_is_named(
    people: Path, tmp_path: Path
):
    paths = sorted(people.rglob("*.jpg"))
    save_image(torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)), tmp_path / "no face.png")
    paths = [*paths, tmp_path / "no face.png", *paths[::-1], *paths[:3]]
    analyser = load_faces()
    together = list(all_embeddings(analyser, paths))
    assert [len(faces) for faces in together].count(0) == 1
    for path, faces in zip(paths, together, strict=True):
        photo = read_photo(path)
        alone = [analyser.embed(photo, face) for face in analyser.find(photo)]
        assert torch.equal(faces, torch.stack(alone) if alone else torch.empty(0, 0)), path
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = [*sorted(people.rglob("*.jpg"))[:9], tmp_path / "broken.jpg"]
    with pytest.raises(UserError, match=r"broken\.jpg"):
        list(all_embeddings(load_faces(), paths))


def test_an_embedder_tells_rendered_people_apart(people: Path):
    report = run(evaluate_pairs(people / "unseen", None, "sface"))
    assert report.photos == 10
    assert report.undetected == []
    assert report.verification.genuine == 5
    assert report.verification.impostor == 5 * 4 // 2 * 4
    assert report.verification.auc > 0.95
    assert report.verification.genuine_mean > report.verification.impostor_mean + 0.2


def test_images_are_scored_against_unseen_photos_person_by_person(people: Path, tmp_path: Path):
    images = tmp_path / "images"
    shutil.copytree(people / "images", images)
    first = sorted(images.iterdir())[0]
    save_image(torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)), first / "a scene-99.png")
    report = run(evaluate_images(images, people / "unseen", people / "reference", "sface"))
    assert report.without_a_face == [f"{first.name}/a scene-99.png"]
    assert set(report.by_identity) == {path.name for path in images.iterdir()}
    assert report.r_facesim["as zero"] < report.r_facesim["left out"]
    assert report.r_facesim["left out"] > 0.6, "they are the same people"
    assert report.interval.low < report.r_facesim["left out"] < report.interval.high
    own = min(report.by_identity.values())
    others = [images / name for name in sorted(report.by_identity)]
    swapped = tmp_path / "swapped"
    shutil.copytree(others[0], swapped / others[1].name)
    wrong = run(evaluate_images(swapped, people / "unseen", people / "reference", "sface"))
    assert wrong.r_facesim["left out"] < own, "another person is less alike"
    shutil.rmtree(first)
    four = run(evaluate_images(images, people / "unseen", people / "reference", "sface"))
    assert four.interval is None, "four people are too few for a bootstrap"


def test_one_person_is_scored_from_plain_folders_and_the_numbers_are_written(people: Path, tmp_path: Path, capsys):
    name = sorted(path.name for path in (people / "images").iterdir())[0]
    reference = next((people / "reference" / name).iterdir())
    folders = [str(people / "images" / name), "--photos", str(people / "unseen" / name), "--reference", str(reference)]
    assert main(["evaluate", "images", *folders, "--out", str(tmp_path / "r.json")]) == 0
    assert "R-FaceSim" in capsys.readouterr().out
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["interval"] is None
    assert written["embedder_sha256"] == load_faces("sface").digest


def test_numbers_are_not_written_over_a_photo_and_file_names_of_any_letters_are_in_them(people: Path, tmp_path: Path):
    images, photos, reference = one_person(people)
    folders = [str(images), "--photos", str(photos), "--reference", str(reference)]
    before = reference.read_bytes()
    assert main(["evaluate", "images", *folders, "--out", str(reference)]) == 1
    assert reference.read_bytes() == before
    image = sorted(images.iterdir())[0]
    image.rename(os.fsdecode(os.fsencode(images / "a") + b"\xff" + os.fsencode(image.suffix)))
    assert main(["evaluate", "images", *folders, "--out", str(tmp_path / "r.json")]) == 0
    assert "a\udcff" in {row["file"][:2] for row in json.loads((tmp_path / "r.json").read_text())["rows"]}


def test_a_reference_among_the_held_out_is_refused_also_under_another_name(people: Path, tmp_path: Path):
    name = sorted(path.name for path in (people / "images").iterdir())[0]
    reference = next((people / "reference" / name).iterdir())
    shutil.copytree(people / "unseen" / name, tmp_path / "unseen")
    shutil.copy(reference, tmp_path / "unseen" / "renamed.jpg")
    with pytest.raises(UserError, match=r"renamed\.jpg shows the same picture as .*"):
        run(evaluate_images(people / "images" / name, tmp_path / "unseen", reference, "sface"))


def test_missing_folders_and_photos_without_a_face_are_named(people: Path, tmp_path: Path):
    with pytest.raises(UserError, match="these folders are missing"):
        run(evaluate_images(people / "images", tmp_path, people / "reference", "sface"))
    with pytest.raises(UserError, match="neither pictures nor sub-folders"):
        run(evaluate_images(tmp_path, people / "unseen", people / "reference", "sface"))
    name = sorted(path.name for path in (people / "images").iterdir())[0]
    save_image(torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)), tmp_path / "wall.png")
    reference = next((people / "reference" / name).iterdir())
    with pytest.raises(UserError, match=r"wall\.png shows no face"):
        run(evaluate_images(people / "images" / name, tmp_path, reference, "sface"))


def test_the_prompt_of_an_image_is_in_its_png_or_its_name(tmp_path: Path):
    save_image(torch.zeros(3, 64, 64), tmp_path / "x-3.png", {"metalora": json.dumps({"prompt": "a beach"})})
    save_image(torch.zeros(3, 64, 64), tmp_path / "a-garden-12.png")
    assert prompt_of(tmp_path / "x-3.png") == "a beach"
    garden = tmp_path / "a-garden-12.png"
    assert prompt_of(garden) is None
    assert group_of(garden, {garden: None}) == "a-garden"


def one_person(people: Path) -> tuple[Path, Path, Path]:
    """(images, photos, reference) of the one with the most images."""
    images = max(sorted((people / "images").iterdir()), key=lambda folder: len(list(folder.iterdir())))
    return images, people / "unseen" / images.name, next((people / "reference" / images.name).iterdir())


def test_clip_scores_whole_images_where_they_are_asked_for(people: Path, tmp_path: Path, capsys):
    _, photos, reference = one_person(people)
    images = tmp_path / "images"
    images.mkdir()
    others = sorted(path for path in (people / "unseen").rglob("*.jpg") if photos not in path.parents)
    for number, path in enumerate(others[:4]):
        shutil.copy(path, images / f"{number}.jpg")
    names = sorted(path.name for path in images.iterdir())
    asked = ["a photo of a woman", "a photo of a man", "green room background"]
    rows = [[name, asked[index % 3]] for index, name in enumerate(names)]
    (tmp_path / "prompts.csv").write_text("image,prompt\n" + "".join(f"{','.join(row)}\n" for row in rows))
    flags = [str(images), "--photos", str(photos), "--reference", str(reference), "--clip", "miniature"]
    flags += ["--prompts", str(tmp_path / "prompts.csv"), "--out", str(tmp_path / "r.json")]
    assert main(["evaluate", "images", *flags]) == 0
    out = capsys.readouterr().out
    whole = json.loads((tmp_path / "r.json").read_text())["whole"]

    clip = load_clip()
    seen, known = clip.images([as_bytes(images / name) for name in names]), clip.images([as_bytes(reference)])[0]

    def by_hand(others: Sequence[torch.Tensor]) -> float:
        """The mean over prompts of the mean over a prompt's images."""
        values = 100 * (seen * torch.stack(list(others))).sum(dim=1).double().numpy()
        return np.mean([values[[prompt == one for _, prompt in rows]].mean() for one in asked])

    assert whole["clip_t"]["mean"] == pytest.approx(by_hand([clip.texts([one])[0] for _, one in rows]), abs=1e-3)
    assert f"CLIP-T{whole['clip_t']['mean']:30.2f}   (clip-miniature)" in out
    assert whole["clip_i"]["mean"] == pytest.approx(by_hand([known] * len(rows)), abs=1e-2)
    assert whole["embedder_sha256"] == clip.digest


def test_without_prompts_there_is_no_clip_t_and_it_is_said(people: Path, capsys: pytest.CaptureFixture):
    images, photos, reference = one_person(people)
    flags = [str(images), "--photos", str(photos), "--reference", str(reference), "--clip", "miniature"]
    assert main(["evaluate", "images", *flags]) == 0
    out = capsys.readouterr().out
    assert "CLIP-I" in out
    assert "no CLIP-T: nothing says what" in out
    assert "Give --prompts." in out


def test_the_list_of_a_plan_says_what_images_show_and_an_image_without_a_prompt_is_named(people: Path, tmp_path: Path):
    images, photos, reference = one_person(people)
    names = sorted(path.name for path in images.iterdir())
    lines = [json.dumps({"path": f"external/METHOD/{name}", "prompt": "a man"}) + "\n" for name in names]
    wanted = tmp_path / "wanted.jsonl"
    wanted.write_text("".join(lines))
    assert read_image_prompts(wanted) == dict.fromkeys(names, "a man")
    wanted.write_text("".join(lines[1:]) + "\n")
    with pytest.raises(UserError, match=rf"no prompt for 1 of {len(names)} images .*such as {names[0]}"):
        run(evaluate_images(images, photos, reference, "sface", prompts=wanted))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,text\na,b\n", "needs a header line image,prompt"),
        ("image,prompt\na.png,\n", r"line 2 needs an image and a prompt, got 'a\.png' and ''"),
        ("image,prompt\na.png,x\na.png,y\n", r"line 3: a\.png has two prompts"),
        ('image,prompt\n\nb.png,"x\ny"\na.png,\n', r"line 5 needs an image"),
    ],
)
def test_what_is_wrong_with_a_table_of_prompts_is_said(text: str, sentence: str, tmp_path: Path):
    (tmp_path / "prompts.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_image_prompts(tmp_path / "prompts.csv")


def test_a_prompt_of_a_table_keeps_its_lines(tmp_path: Path):
    (tmp_path / "prompts.csv").write_text('image,prompt\na.png,"x\ny"\n')
    assert read_image_prompts(tmp_path / "prompts.csv") == {"a.png": "x\ny"}

"""Stage 1 across photos on the tiny FLUX, from photos to a Meta-Down, as a user runs it."""

import csv
import json
import shutil
from pathlib import Path

import photos
import pytest
import torch

from metalora.cli import main
from metalora.method.across_photos import AcrossPhotos
from metalora.method.shared_directions import ROW_LENGTH
from metalora.store import files
from metalora.store.cache import Cache
from metalora.store.pictures import save_image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BENCHMARK = ROOT / "metalora" / "data" / "mini_benchmark"
COMMAND = ["meta-train", "people", "--backbone", "tiny", "--resolution", "64", "--steps", "8", "--batch", "2"]
COMMAND += ["--save-every", "3", "--validation-people", "2", "--caption-variants", "2"]
EACH = 3  # photos of a person


@pytest.fixture
def here(tmp_path: Path, warm_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with five people of three photos each, with captions."""
    monkeypatch.setenv("METALORA_CACHE", str(warm_cache.folder))
    monkeypatch.chdir(tmp_path)
    rows = [json.loads(line) for line in (BENCHMARK / "manifest.jsonl").read_text().splitlines()]
    for name in list(dict.fromkeys(row["identity"] for row in rows if row["part"] == "several-photos"))[:5]:
        folder = tmp_path / "people" / name
        folder.mkdir(parents=True)
        for number, row in enumerate([row for row in rows if row["identity"] == name][:EACH]):
            shutil.copy(BENCHMARK / row["path"], folder / f"{number}.jpg")
            (folder / f"{number}.txt").write_text(row["caption"])
    return tmp_path


def test_from_photos_to_a_meta_down_stopped_on_the_way(  # killed on the way: test_kills.py
    here: Path, portrait: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert main([*COMMAND, "--out", "whole.safetensors"]) == 0
    said = capsys.readouterr()
    assert "meta-training across 9 photos of 3 people, 2 people held out" in said.err
    assert "loss on unseen people's other photos" in said.out
    check_file(here / "whole.safetensors")
    check_logs(here / "whole.run")
    check_said(here / "whole.run", said.err)
    whole = (here / "whole.safetensors").read_bytes()

    step = AcrossPhotos.step

    class Cancelled(Exception):
        """As ComfyUI stops what runs in it, before anything of the step has moved."""

    def stopping(self: AcrossPhotos, index: int, norm: torch.Tensor) -> None:
        if index == 4:
            raise Cancelled
        step(self, index, norm)

    with monkeypatch.context() as patched:
        patched.setattr(AcrossPhotos, "step", stopping)
        with pytest.raises(Cancelled):
            main([*COMMAND, "--out", "stopped.safetensors"])
    assert not (here / "stopped.safetensors").exists()
    assert main([*COMMAND, "--out", "stopped.safetensors"]) == 0
    assert "going on from step 4" in capsys.readouterr().err
    assert (here / "stopped.safetensors").read_bytes() == whole

    for name in ("steps.csv", "validation.csv"):
        assert (here / "stopped.run" / name).read_bytes() == (here / "whole.run" / name).read_bytes()

    # where the learning rate falls towards the end, another number of steps is another run
    assert main([*COMMAND, "--steps", "9", "--out", "whole.safetensors", "--overwrite"]) == 1
    assert "options differ" in capsys.readouterr().err

    shutil.copy(portrait, here / "ada.jpg")
    personal = ["personalize", "ada.jpg", "--backbone", "tiny", "--meta-down", "whole.safetensors"]
    assert main([*personal, "--steps", "2", "--resolution", "64"]) == 0


def check_said(folder: Path, said: str) -> None:
    """Each validation's line names the one at which heads from the own face gained most."""
    with (folder / "validation.csv").open() as file:
        rows = [
            (int(row["step"]), float(row["loss_no_heads"]) - float(row["loss_own_face"]))
            for row in csv.DictReader(file)
        ]
    for index in range(1, len(rows)):
        best, _ = max(rows[: index + 1], key=lambda row: row[1])
        words = "the best so far" if best == rows[index][0] else f"the best was at step {best}"
        (line,) = (line for line in said.splitlines() if line.startswith(f"step {rows[index][0]}, unseen people"))
        assert line.endswith(f"; {words}")


def check_file(path: Path) -> None:
    tensors, metadata = files.read(path, ("meta-down",))
    sites = {name.removesuffix(".down") for name in tensors if name.endswith(".down")}
    generator = {name for name in tensors if name.startswith("generator.")}
    assert len(sites) == 40
    assert tensors.keys() == {f"{site}.{role}" for site in sites for role in ("down", "mid", "up")} | generator
    assert tensors["generator.layers.4.weight"].shape == (40 * 16, 256)
    for site in sites:
        down = tensors[f"{site}.down"]
        torch.testing.assert_close(down @ down.T, ROW_LENGTH**2 * torch.eye(16), rtol=0, atol=1e-5)
        assert tensors[f"{site}.mid"].shape == (16, 16)
        assert tensors[f"{site}.up"].any()
    assert metadata["objective"] == "across-photos"
    assert metadata["people"] == "3"
    name, digest = metadata["face_embedder"].split()
    assert name == "sface"
    assert len(digest) >= 16
    options = json.loads(metadata["options"])
    assert (options["generator_rate"], options["identity_dropout"], options["caption_variants"]) == (1e-3, 0.7, 2)


def check_logs(folder: Path) -> None:
    with (folder / "validation.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["step"] for row in rows] == ["0", "3", "6", "8"]
    assert list(rows[0]) == ["step", "loss_own_face", "loss_another_face", "loss_no_heads"]
    assert len(set(list(rows[0].values())[1:])) == 1, "a new run changes nothing"
    assert len(set(list(rows[-1].values())[1:])) == 3
    assert len({row["loss_no_heads"] for row in rows}) == 1, "the base does not change"
    with (folder / "steps.csv").open() as table:
        assert [row["step"] for row in csv.DictReader(table)] == [str(step) for step in range(1, 9)]
    assert (folder / "progress.png").exists()


def test_photos_without_a_face_copies_and_people_with_one_photo_are_named_and_left_out(
    here: Path, capsys: pytest.CaptureFixture
):
    first, *others = sorted((here / "people").iterdir())
    save_image(photos.empty_wall(), first / "wall.png")
    shutil.copy(first / "0.jpg", first / "copy.jpg")
    (here / "people" / "ada").mkdir()
    shutil.copy(others[0] / "0.jpg", here / "people" / "ada" / "0.jpg")
    save_image(photos.empty_wall(), here / "people" / "ada" / "1.png")
    command = [*COMMAND, "--steps", "1", "--validation-people", "0", "--out", "x.safetensors"]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"left out 2 photos that show no face that was found: ada/1.png, {first.name}/wall.png" in said
    assert f"left out 1 photos that are copies of another photo of the person: {first.name}/copy.jpg" in said
    assert "left out 1 people who have fewer than two photos with a face: ada" in said
    assert "meta-training across 15 photos of 5 people" in said


def test_too_few_people_and_settings_of_the_other_objective_are_one_sentence(here: Path, capsys: pytest.CaptureFixture):
    kept = sorted((here / "people").iterdir())[:2]
    for folder in (here / "people").iterdir():
        if folder not in kept:
            shutil.rmtree(folder)
    assert main([*COMMAND, "--validation-people", "1", "--out", "x.safetensors"]) == 1
    assert "2 people, 1 of them held out, leave 1 to train on" in capsys.readouterr().err
    for folder in kept:
        for photo in (folder / "1.jpg", folder / "2.jpg"):
            photo.unlink()
    assert main([*COMMAND, "--out", "x.safetensors"]) == 1
    assert "0 people, 0 of them held out, leave 0 to train on" in capsys.readouterr().err
    assert main([*COMMAND, "--flips", "--out", "x.safetensors"]) == 1
    said = capsys.readouterr().err
    assert "flips is for objective paper" in said
    assert "Traceback" not in said

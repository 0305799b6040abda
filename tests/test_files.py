"""Laws of the files: whole or not at all, the same bytes for the same content, refused where another is needed."""

import errno
import os
from pathlib import Path

import pytest
import torch
from runs import python
from safetensors.torch import load_file, save_file

from metalora.config import UserError
from metalora.store import files

TENSORS = {"b.down": torch.randn(4, 8), "a.up": torch.randn(3, 1)}
FACTS = {"base": "flux.1-dev", "rank": "1", "options": '{"steps": 375}', "modelspec.title": "t"}


def test_what_was_written_is_read_back_by_us_and_by_anyone(tmp_path: Path):
    path = tmp_path / "new" / "x.safetensors"
    files.write(path, TENSORS, "adapter", FACTS)
    tensors, metadata = files.read(path, ("adapter",), base="flux.1-dev")
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in load_file(path).items())
    assert metadata["rank"] == "1"
    assert metadata["kind"] == "adapter"


def test_the_same_content_gives_the_same_bytes_in_every_process(tmp_path: Path):
    code = (
        "import sys, torch; from pathlib import Path; from metalora.store import files\n"
        "files.write(Path(sys.argv[1]), {'w': torch.arange(5.)}, 'lora', {f'fact{i}': str(i) for i in range(12)})"
    )
    for name in ("one", "two"):
        assert python(code, tmp_path / name).returncode == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_that_was_trained_on_other_weights_of_its_base_says_so():
    said = {"base": "flux-256x2x4", "base_fingerprint": "ab-torch.float32"}
    (sentence,) = files.of_other_weights(Path("ada.safetensors"), said, "cd-torch.float32")
    assert "ada.safetensors was trained on other weights of flux-256x2x4" in sentence
    for fingerprint in ("ab-torch.bfloat16", "cd"):  # another precision of the same files; ComfyUI's, of no files
        assert not files.of_other_weights(Path("ada.safetensors"), said, fingerprint)
    assert not files.of_other_weights(Path("of-another-maker.safetensors"), {}, "cd-torch.float32")


def test_nan_is_never_written(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match=r"1 tensors hold NaN or infinity, w among them"):
        files.write(path, {"w": torch.tensor([1.0, float("nan")])}, "lora", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_is_a_sentence_and_leaves_the_old_file_whole(tmp_path: Path, monkeypatch, failing: str):
    path = tmp_path / "x.safetensors"
    files.write(path, TENSORS, "adapter", FACTS)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full) if failing == "fsync" else monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="could not be written: No space left on device"):
        files.write(path, {"w": torch.ones(1)}, "adapter", FACTS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_place_that_cannot_be_written_is_found_before_the_work_and_another_process_is_left_alone(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="could not be written"):
        files.check_writable(tmp_path / "file" / "x.safetensors")
    files.check_writable(tmp_path / "new" / "folder" / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "asking leaves nothing behind"
    (tmp_path / "plan.json.partial").write_text("another's")
    files.check_writable(tmp_path / "new" / "plan.json")
    assert (tmp_path / "plan.json.partial").read_text() == "another's"


def test_asking_on_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path):
    code = (
        "import resource, sys; from pathlib import Path; from metalora.config import UserError\n"
        "from metalora.store import files; resource.setrlimit(resource.RLIMIT_FSIZE, (2, 2))\n"
        "try: files.check_writable(Path(sys.argv[1]) / 'x.safetensors')\nexcept UserError as error: print(error)"
    )
    assert "x.safetensors could not be written: File too large" in python(code, tmp_path).stdout
    assert not list(tmp_path.iterdir())


def test_what_dead_processes_left_unfinished_goes_and_what_living_ones_write_stays(tmp_path: Path):
    code = "import sys; from pathlib import Path; from metalora.store import files; print(files.partial_of(Path('x')))"
    name = python(code).stdout
    living = files.partial_of(tmp_path / "y")
    elsewhere = tmp_path / "z.0123ab-1.partial"
    for path in (tmp_path / name.strip(), tmp_path / "old.safetensors.999999999.partial", living, elsewhere):
        path.write_bytes(b"half")
    (tmp_path / "plan.json.partial").write_text("another program's")
    files.write(tmp_path / "x.safetensors", TENSORS, "adapter", FACTS)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"x.safetensors", living.name, elsewhere.name, "plan.json.partial"}
    os.utime(elsewhere, (1e9, 1e9))
    os.utime(living, (1e9, 1e9))  # this process is younger: it has got the number of one that died
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"x.safetensors", "plan.json.partial"}


def test_a_name_as_long_as_the_disk_takes_is_written(tmp_path: Path):
    path = tmp_path / ("é" * 121 + ".safetensors")
    files.write(path, TENSORS, "adapter", FACTS)
    assert path.is_file()


def test_a_file_of_another_kind_or_base_and_what_is_no_safetensors_file_are_refused(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    files.write(path, TENSORS, "adapter", FACTS)
    with pytest.raises(UserError, match=r"is an adapter file, but a Meta-Down file is needed"):
        files.read(path, ("meta-down",))
    with pytest.raises(UserError, match=r"made for 'flux.1-dev', but the loaded model is 'tiny'"):
        files.read(path, ("adapter",), base="tiny")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.safetensors").touch()
    save_file(TENSORS, tmp_path / "others.safetensors")
    cut = (tmp_path / "others.safetensors").read_bytes()[:-5]
    (tmp_path / "cut.safetensors").write_bytes(cut)
    for name, sentence in {
        "text": "not a readable safetensors file",
        "empty": "not a readable safetensors file",
        "cut": "may be cut short",
        "missing": "does not exist",
        "others": "is not a file of this project, but an adapter file is needed",
    }.items():
        with pytest.raises(UserError, match=sentence):
            files.read(tmp_path / f"{name}.safetensors", ("adapter",))
    with pytest.raises(UserError, match="is a folder"):
        files.read(tmp_path, ("adapter",))


def test_a_digest_sees_names_shapes_and_values():
    digest = files.digest_of_tensors(TENSORS)
    assert digest == files.digest_of_tensors(dict(reversed(TENSORS.items())))
    changed = [
        {**TENSORS, "a.up": TENSORS["a.up"] + 1e-3},
        {"c.up": TENSORS["a.up"], "b.down": TENSORS["b.down"]},
        {**TENSORS, "b.down": TENSORS["b.down"].reshape(8, 4)},
    ]
    assert digest not in {files.digest_of_tensors(tensors) for tensors in changed}

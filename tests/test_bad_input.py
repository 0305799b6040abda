"""Bad input: each has its sentence, and nothing is written."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from photos import png_that_claims
from runs import CONFIG, CROPS, meta_down_file, personalized

import metalora
from metalora.backbones.pipeline import PipelineBackbone
from metalora.cli import main
from metalora.config import CropConfig, PersonalizeConfig, UserError
from metalora.jobs import run
from metalora.jobs.crops import write_crops
from metalora.jobs.personalize import personalize_photos
from metalora.store import files
from metalora.store.cache import Cache
from metalora.store.images import read_photo
from metalora.store.pictures import save_image


@pytest.fixture
def attempt(tiny: PipelineBackbone, tmp_path: Path, warm_cache: Cache):
    out = tmp_path / "result" / "ada.safetensors"

    def refused(photo: Path, sentence: str, config: PersonalizeConfig = CONFIG, **options: object) -> None:
        with pytest.raises(UserError, match=sentence):
            personalized(tiny, warm_cache, photo, out, config, **options)
        assert not list(out.parent.glob("*")), "something was written"

    return refused


def test_a_photo_of_no_face_of_two_or_no_photo_at_all(attempt, tmp_path: Path, portrait: Path):
    save_image(torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0)), tmp_path / "noise.png")
    attempt(tmp_path / "noise.png", r"No face was found in noise\.png")
    photo = read_photo(portrait)
    save_image(torch.cat([photo, photo], dim=2), tmp_path / "two.png")
    attempt(tmp_path / "two.png", r"two\.png shows 2 faces: 1: .* 2: .*--face")
    with pytest.raises(UserError, match=r"faces\.png shows them with their numbers"):
        run(write_crops(tmp_path / "two.png", tmp_path / "crops", CROPS))
    assert [path.name for path in (tmp_path / "crops").iterdir()] == ["faces.png"]
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(portrait.read_bytes()[:20_000])
    for name in ("text.jpg", "empty.jpg", "cut.jpg", "missing.jpg"):
        attempt(tmp_path / name, name.replace(".", r"\."))
    (tmp_path / "bomb.png").write_bytes(png_that_claims(50_000, 50_000))
    attempt(tmp_path / "bomb.png", r"bomb\.png is far larger than the 40 megapixels")


def test_a_face_too_small_to_train_on(attempt, portrait: Path, tmp_path: Path, tiny, warm_cache):
    out = tmp_path / "result" / "ada.safetensors"
    config = CropConfig(resolution=2048, max_upscale=1.0)
    job = personalize_photos(tiny, [portrait], out, CONFIG, config, meta_down="random", cache=warm_cache)
    with pytest.raises(UserError, match=r"too small to train at 2048 px.*Use a larger photo, or lower --resolution"):
        run(job)
    assert not list(out.parent.glob("*"))


def test_a_meta_down_that_does_not_fit(attempt, tiny: PipelineBackbone, portrait: Path, tmp_path: Path):
    lora_file = tmp_path / "lora.safetensors"
    files.write(lora_file, {"x": torch.zeros(1)}, "lora", {"base": tiny.name})
    attempt(portrait, "is a finished LoRA file, but a Meta-Down file is needed", meta_down=str(lora_file))
    other = meta_down_file(tiny, tmp_path / "other.safetensors", base="flux.1-dev")
    attempt(portrait, r"made for 'flux.1-dev'", meta_down=str(other))
    low = meta_down_file(tiny, tmp_path / "low.safetensors", rank=2)
    attempt(
        portrait,
        r"has rank 2 \(r1\), so --rank \(r2\) can be at most that",
        replace(CONFIG, rank=4),
        meta_down=str(low),
    )
    attempt(portrait, "does not exist", meta_down=str(tmp_path / "missing.safetensors"))
    attempt(portrait, "needs --meta-down FILE", meta_down=None)


def test_a_result_that_exists_is_not_replaced_unasked(personalize, tmp_path: Path):
    out = tmp_path / "ada.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(UserError, match="exists already"):
        personalize(out)
    assert out.read_bytes() == b"precious"


def test_a_disk_that_fills_up_during_the_run_loses_nothing(
    personalize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, write = tmp_path / "result" / "ada.safetensors", files.write

    def full(path: Path, tensors: dict, kind: str, metadata: dict) -> None:
        if kind == "adapter":
            with files.mended_os_errors(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        write(path, tensors, kind, metadata)

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        personalize(out)
    assert [path.name for path in out.parent.iterdir()] == ["ada.state.safetensors"]
    monkeypatch.undo()
    personalize(tmp_path / "whole.safetensors")
    personalize(out)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_folder_that_cannot_be_written_is_found_before_the_photo_is_read(
    tiny: PipelineBackbone, tmp_path: Path, warm_cache: Cache
):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not be written"):
        personalized(tiny, warm_cache, tmp_path / "missing.jpg", tmp_path / "file" / "ada.safetensors")


def test_a_meta_down_file_brings_its_own_r1(personalize, tiny: PipelineBackbone, tmp_path: Path):
    config = replace(CONFIG, rank=4, meta_rank=2, steps=1)
    with pytest.raises(UserError, match="larger than meta_rank"):
        personalize(tmp_path / "random.safetensors", config)
    wide = meta_down_file(tiny, tmp_path / "wide.meta.safetensors", rank=8)
    personalize(tmp_path / "ada.safetensors", config, meta_down=str(wide))


@pytest.mark.parametrize(
    "words",
    [
        ("personalize", "ada.jpg", "--fit", "1e308"),
        ("personalize", "ada.jpg", "--fit", "nan"),
        ("personalize", "ada.jpg", "--face", "9" * 5000),
        ("personalize", "ada.jpg", "--out", ""),
        ("personalize", "ada.jpg", "--backbone", ""),
        ("meta-train", "people", "--out", "a.safetensors", "--caption", "{class:0>3000000000}"),
        ("meta-train", "people", "--out", "a.safetensors", "--caption", "{class.foo}"),
        ("crops", "a" * 5000 + ".jpg"),
        ("crops", "ada.jpg", "--out", "a" * 5000),
        ("crops", "ada.jpg", "--out", "a/" * 2000),
        ("info", "a" * 5000),
        ("personalize", "ada.jpg", "--out", "a" * 300 + ".safetensors"),
        ("evaluate", "images", "a" * 5000, "--photos", "b"),
        ("benchmark", "run", "a" * 5000),
        ("merge", "."),
    ],
)
def test_what_nobody_types_on_purpose_is_a_sentence_too(here, capsys, words):
    backbone = ["--backbone", "tiny"] if words[0] in ("personalize", "crops") else []
    assert main([words[0], *backbone, *words[1:]]) in (1, 2)
    assert "metalora: " in capsys.readouterr().err


NO_NAMES = ["\0", "\ud800", "a" * 5000]
CALLS = {
    "crops": ("ada.jpg", {"backbone": "tiny"}, ("out",)),
    "personalize": (
        "ada.jpg",
        {"backbone": "tiny", "resolution": 64, "steps": 1},
        ("out", "meta_down", "cache", "transformer"),
    ),
    "generate": (
        "a",
        {"backbone": "tiny", "width": 64, "height": 64, "sampling_steps": 1},
        ("lora", "out", "backbone"),
    ),
    "evaluate": (
        "here",
        {"photos": "there", "reference": "ada.jpg"},
        ("photos", "reference", "prompts", "clip", "faces"),
    ),
    "meta_train": ("people", {"backbone": "tiny", "out": "a.safetensors"}, ("out", "cache")),
}


@pytest.mark.parametrize("name", NO_NAMES, ids=["zero", "half-a-letter", "long"])
@pytest.mark.parametrize("called", CALLS)
def test_a_name_that_no_disk_takes_is_a_sentence_in_python_too(here, called, name):
    for path in ("here/1.jpg", "there/2.jpg"):
        Path(path).parent.mkdir()
        shutil.copy("ada.jpg", path)
    first, given, settings = CALLS[called]
    function = getattr(metalora, called)
    with pytest.raises(UserError):
        function(name, progress=metalora.quiet, **given | {"out": f"{name}.safetensors"})
    for setting in settings:
        with pytest.raises(UserError):
            function(first, progress=metalora.quiet, **given | {setting: name})


def test_a_device_without_numbers_and_a_name_that_is_no_utf_8_are_refused_before_the_work(
    tmp_path: Path, portrait: Path, personalize
):
    with pytest.raises(UserError, match="--device meta cannot be used here"):
        metalora.personalize(portrait, backbone="tiny", device="meta", out=tmp_path / "ada.safetensors")
    with pytest.raises(UserError, match="no UTF-8"):
        personalize(tmp_path / os.fsdecode(b"\xff.safetensors"), CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "images"),
    [('prompt = "a photo"', ["a-photo-0.png"]), ('prompt = ["a", "b"]', ["a-0.png", "b-0.png"]), ("prompt = 3", None)],
)
def test_prompts_of_a_settings_file_are_a_text_or_several(here: Path, capsys, text: str, images):
    Path("s.toml").write_text(f'{text}\nbackbone = "tiny"\nwidth = 64\nheight = 64\nsampling_steps = 1\n')
    code = main(["generate", "--config", "s.toml"])
    assert (code, "prompt must be a text" in capsys.readouterr().err) == ((1, True) if images is None else (0, False))
    made = sorted(path.name for path in Path("images").glob("*-0.png")) if images else None
    assert made == images

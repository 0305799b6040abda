"""The door: `import metalora`, its functions, settings that are declared once, and that repeat a run."""

import argparse
import dataclasses
import doctest
import inspect
import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
from runs import python

import metalora
from metalora import api
from metalora.backbones.bases import PRESETS
from metalora.cli import add_options, main, make_parser, settings_of
from metalora.config import CropConfig, GenerateConfig, PersonalizeConfig, UserError
from metalora.settings import PersonalizeSettings, config_of, read_settings, settings_text

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "metalora" / "data" / "mini_benchmark" / "photos"
SMALL = {"backbone": "tiny", "resolution": 64, "steps": 3, "class_name": "woman"}
SMALL_FLAGS = ["--backbone", "tiny", "--resolution", "64", "--steps", "3", "--class", "woman"]


def copied(folder: str, *patterns: str) -> None:
    Path(folder).mkdir(parents=True)
    for pattern in patterns:
        for photo in PHOTOS.glob(pattern):
            shutil.copy(photo, folder)


def test_importing_it_loads_nothing_heavy():
    code = "import sys, metalora; print(sorted({'torch', 'numpy', 'diffusers', 'PIL', 'tqdm'} & set(sys.modules)))"
    said = python(code)
    assert said.stdout.strip() == "[]", said.stderr


@pytest.mark.parametrize("name", ["crops", "personalize", "generate", "evaluate", "meta_train"])
def test_the_example_of_a_function_is_what_happens(here: Path, name: str):
    if name == "evaluate":
        shutil.copy(PHOTOS / "300000-0.jpg", "ada.jpg")
        copied("unseen", "300000-1.jpg", "300000-2.jpg")
        copied("images", "300000-3.jpg")
    if name == "generate":
        metalora.personalize("ada.jpg", steps=1, progress=metalora.quiet)
    if name == "meta_train":
        copied("people/ada", "300000-*.jpg")
        copied("people/eva", "300003-*.jpg")
    examples = doctest.DocTestFinder().find(getattr(metalora, name), name, globs=vars(api).copy())
    assert sum(len(example.examples) for example in examples) >= 2
    runner = doctest.DocTestRunner()
    assert all(runner.run(example).failed == 0 for example in examples)


def test_every_setting_is_in_the_signature_with_its_type():
    signature = inspect.signature(metalora.personalize)
    assert next(iter(signature.parameters)) == "photo"
    assert signature.parameters["steps"].annotation is int
    assert signature.parameters["learn_from"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stepz": 3}, "metalora.personalize has no setting called stepz. Did you mean steps?"),
        ({"steps": "many"}, "steps must be int, got 'many'"),
        ({"progress": "a bar"}, "progress must be a function of a Phase or Step, got 'a bar'"),
        ({"learn_from": "photo"}, "learn_from must be one of crops, whole, square"),
        ({"backbone": "tiny", "vae": "ae.safetensors"}, "tiny is drawn from a seed"),
    ],
)
def test_a_setting_that_is_wrong_is_named(here: Path, given: dict, said: str):
    with pytest.raises(metalora.UserError, match=re.escape(said)):
        metalora.personalize("ada.jpg", **given)
    with pytest.raises(
        metalora.UserError, match=r"needs photos \(--photos: .*\) and reference \(--reference: the photo"
    ):
        metalora.evaluate("images")
    assert [path.name for path in here.iterdir()] == ["ada.jpg"]


@pytest.mark.parametrize("given", [3, None, True, b"ada.jpg", {}, ["ada.jpg", 3], Ellipsis], ids=repr)
def test_what_is_no_photo_or_prompt_is_named(here: Path, given: object):
    calls = {
        "crops": "photo",
        "personalize": "photo",
        "generate": "prompt",
        "evaluate": "images",
        "meta_train": "people",
    }
    for name, argument in calls.items():
        with pytest.raises(metalora.UserError, match=rf"metalora\.{name}: {argument} must be a (path|text)"):
            getattr(metalora, name)(given)
        with pytest.raises(metalora.UserError, match=rf"metalora\.{name}: {argument} must be a (path|text)"):
            getattr(metalora, name)(**{argument: given})  # by its name, as the signature has it
        with pytest.raises(metalora.UserError, match=rf"metalora\.{name} needs {argument}"):
            getattr(metalora, name)()
    assert [path.name for path in here.iterdir()] == ["ada.jpg"]


@pytest.mark.parametrize("text", ['step_counts = ["a"]', "ranks = [1.5]", "meta_down = [3]", "seeds = [true]"])
def test_lists_in_a_settings_file_hold_what_they_should(tmp_path: Path, text: str, capsys):
    (tmp_path / "settings.toml").write_text(text)
    command = ["benchmark", "plan", str(tmp_path / "run"), "--config", str(tmp_path / "settings.toml")]
    assert main([*command, "--backbone", "tiny"]) == 1
    assert f"{text.split()[0]} must be tuple[" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_command_and_the_function_write_the_same_files(here: Path):
    assert main(["personalize", "ada.jpg", *SMALL_FLAGS]) == 0
    shown: list[object] = []
    made = metalora.personalize("ada.jpg", out="again.safetensors", progress=shown.append, **SMALL)
    assert Path("ada.safetensors").read_bytes() == made.lora.read_bytes()
    assert any(getattr(progress, "loss", None) for progress in shown)


@pytest.mark.parametrize("flags", [["--background-weight", "0.5"], ["--meta-down", "random", "--seed", "7"]])
def test_a_run_that_is_repeated_from_its_settings_gives_the_same_bytes(
    here: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    assert main(["personalize", "ada.jpg", *SMALL_FLAGS, *flags]) == 0
    monkeypatch.chdir(here.parent)
    assert main(["personalize", "--config", str(here / "ada.toml")]) == 1  # it is there already
    again = here / "again.safetensors"
    assert main(["personalize", "--config", str(here / "ada.toml"), "--out", str(again)]) == 0
    assert (here / "ada.safetensors").read_bytes() == again.read_bytes()
    first, second = (read_settings(here / f"{name}.toml") for name in ("ada", "again"))
    assert first == second | {"out": str(here / "ada.safetensors")}


def test_settings_of_images_repeat_them(here: Path):
    size = ["--width", "64", "--height", "64", "--sampling-steps", "1", "--backbone", "tiny"]
    assert main(["generate", "--prompt", 'a "woman" \\ outdoors', *size]) == 0
    assert main(["generate", "--config", "images.toml", "--out", "again"]) == 0
    (first,), (second,) = Path("images").glob("*.png"), Path("again").glob("*.png")
    assert first.read_bytes() == second.read_bytes()


def test_a_settings_file_is_read_as_it_was_written_and_a_wrong_one_is_refused(tmp_path: Path, capsys):
    path = tmp_path / "settings.toml"
    settings = {"caption": 'a "photo" \\ of\n{class} \x7f ü', "learning_rate": 1e-5, "flips": True, "seeds": (1, 2)}
    path.write_text(settings_text("metalora personalize", settings), encoding="utf-8")
    assert read_settings(path) == {**settings, "seeds": [1, 2]}
    for text, said in (
        ("stepz = 3", "Did you mean steps?"),
        ("steps = ", "is not a TOML file"),
        ('progress = "a bar"', "has no setting called progress"),
        ("", "cannot be read"),
    ):
        path.write_text(text)
        if not text:
            path.unlink()
        assert main(["personalize", "a.jpg", "--config", str(path)]) == 1
        assert said in capsys.readouterr().err


def test_the_short_help_fits_one_screen_and_the_long_one_has_every_flag(capsys: pytest.CaptureFixture):
    texts = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            main(["personalize", flag])
        texts[flag] = capsys.readouterr().out
    assert len(texts["--help"].splitlines()) <= 40
    assert 10 <= len(re.findall(r"^  --", texts["--help"], re.MULTILINE)) <= 16
    for name in PersonalizeSettings.__dataclass_fields__.keys() - {"progress", "class_name"}:
        assert f"--{name.replace('_', '-')}" in texts["--help-all"], name
    make_parser()  # all commands together


@pytest.mark.slow
def test_the_command_loads_no_package_that_it_does_not_need(here: Path):
    """Those are installed for tests; a person may have them for something else."""
    code = (
        "import sys; from metalora.cli import entry; sys.argv[1:] = sys.argv[2:]; entry(); "
        "print(sorted({'peft', 'bitsandbytes', 'scipy', 'timm'} & set(sys.modules)))"
    )
    photo = str(PHOTOS / "300000-1.jpg")
    ended = python(code, "", "personalize", photo, "--steps", "1", "--out", "a.safetensors")
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr
    assert "kernels" not in ended.stderr


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(here: Path):
    cells = json.loads((ROOT / "docs" / "one-photo.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    assert "steps, sampling_steps = 150, 24" in sources[0]
    sources[0] = sources[0].replace("150, 24", "2, 1")
    (here / "one_photo.py").write_text("\n".join(sources), encoding="utf-8")
    names = runpy.run_path("one_photo.py")
    assert len(names["images"]) == 4
    assert len(names["report"].rows) == 2  # those with the LoRA


def test_every_option_out_of_range_is_listed_in_one_message():
    with pytest.raises(UserError) as error:
        PersonalizeConfig(steps=0, learning_rate=float("nan"), method="dora", seed="one")
    message = str(error.value)
    assert "steps must be at least 1, got 0" in message
    assert "learning_rate must be a finite number, got nan" in message
    assert "method must be one of meta-lora, lora, got 'dora'" in message
    assert "seed must be int, got 'one'" in message


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({"class_name": "woman"}, "a photo of a woman"),
        ({"class_name": "woman", "trigger": "ada"}, "a photo of a ada woman"),
        ({"class_name": "cat", "caption": "{class}, painted"}, "cat, painted"),
    ],
)
def test_the_caption_is_filled_in(options: dict[str, str], prompt: str):
    config = PersonalizeConfig(**options)
    assert config.prompt == prompt
    assert config.class_prompt == prompt.replace("ada ", "")


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (PersonalizeConfig, {"caption": "x", "trigger": "y"}, "caption"),  # no place for it; others: test_text.py
        (GenerateConfig, {"width": 1000}, "multiples of 16, not 1000 x 1024"),
        *((CropConfig, {"face": face}, "face must be") for face in ("first", "0", "-1", "")),
    ],
)
def test_what_means_nothing_is_refused_at_birth(kind: type, options: dict[str, object], sentence: str):
    with pytest.raises(UserError, match=sentence):
        kind(**options)


@pytest.mark.parametrize("config", [CropConfig, PersonalizeConfig, GenerateConfig])
def test_flags_give_back_every_option(config: type):
    parser = argparse.ArgumentParser()
    add_options(parser, config)
    defaults = config()
    arguments = []
    for option in dataclasses.fields(config):
        value = getattr(defaults, option.name)
        flag = option.metadata["flag"] or "--" + option.name.replace("_", "-")
        arguments += [flag if value else flag.replace("--", "--no-")] if option.type is bool else [flag, str(value)]
    assert config_of(config, settings_of(parser.parse_args(arguments), config), "tiny") == defaults


def test_a_given_flag_beats_the_preset_of_the_backbone_and_the_preset_beats_the_default():
    parser = argparse.ArgumentParser()
    add_options(parser, CropConfig)
    nothing, given = (settings_of(parser.parse_args(words), CropConfig) for words in ([], ["--resolution", "256"]))
    assert config_of(CropConfig, nothing, "flux-dev").resolution == 1024
    assert config_of(CropConfig, nothing, "tiny").resolution == PRESETS["tiny"]["resolution"]
    assert config_of(CropConfig, given, "tiny").resolution == 256

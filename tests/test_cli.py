"""The command line, as a person uses it."""

import re
import shlex
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from comfy_files import save_pipeline, save_single_files

from metalora.backbones.bases import PRESETS
from metalora.backbones.tiny_flux import TinyFlux
from metalora.cli import flags_of, main, make_parser, settings_of
from metalora.config import BaseConfig, PersonalizeConfig
from metalora.settings import PersonalizeSettings, config_of
from metalora.store import files

ROOT = Path(__file__).parents[1]
PEOPLE = str(ROOT / "metalora" / "data" / "mini_benchmark" / "manifest.jsonl")
FAST = ["--steps", "3", "--resolution", "64"]
TINY = ["--backbone", "tiny"]


def test_one_person_in_three_commands(here: Path, capsys: pytest.CaptureFixture):
    assert main(["crops", "ada.jpg", "--backbone", "tiny"]) == 0
    assert (here / "ada-crops" / "sheet.png").exists()
    assert main(["personalize", "ada.jpg", "--class", "woman", "--method", "lora", *FAST, *TINY]) == 0
    said = capsys.readouterr().out
    assert re.search(r"validation loss \d\.\d+ -> \d\.\d+, \d\.\d+ s a step", said)
    following = next(line for line in said.splitlines() if line.startswith("next:  metalora generate"))
    command = shlex.split(following.removeprefix("next:  metalora "))
    assert main([*command, "--sampling-steps", "1", "--width", "64", "--height", "64"]) == 0
    assert sorted(path.name for path in (here / "images").iterdir()) == [
        "a-photo-of-a-woman-0-base.png",
        "a-photo-of-a-woman-0.png",
        "sheet.png",
    ]


def test_what_the_crops_were_shown_with_is_in_the_next_command(here: Path, capsys: pytest.CaptureFixture):
    given = ["--tightest", "2.5", "--learn-from", "square", "--face", "1", "--no-flips", *TINY]
    assert main(["crops", "ada.jpg", *given]) == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next:"))
    words = shlex.split(command.removeprefix("next:  metalora "))
    assert sorted(words) == sorted(["personalize", "ada.jpg", *given, "--class", "woman"])
    assert main([*words, *FAST]) == 0
    assert "a plain LoRA is trained (--method lora)" in capsys.readouterr().err
    assert main(["crops", "ada.jpg", "--learn-from", "whole", *TINY]) == 0
    said = capsys.readouterr().out.rstrip()
    assert said.endswith("ada.jpg --learn-from whole --backbone tiny --class woman")
    whole = ["personalize", "ada.jpg", "--learn-from", "whole", "--overwrite", *TINY, *FAST]
    assert main(whole) == 0
    assert "a plain LoRA is trained (--method lora)" in capsys.readouterr().err


def test_a_base_from_single_files_gives_the_lora_that_the_same_base_gives_otherwise(here: Path):
    fast = [*FAST, "--precision", "fp32", "--learning-rate", "1e-3", "--meta-down", "random"]
    assert main(["personalize", "ada.jpg", *fast, *TINY, "--out", "expected.safetensors"]) == 0
    parts, settings = save_single_files(TinyFlux(), here / "files"), save_pipeline(TinyFlux(), here / "pipeline")
    for weights in settings.rglob("*.safetensors"):
        weights.unlink()
    base = ["--backbone", str(settings)]
    base += [word for part, path in parts.items() for word in (f"--{part.replace('_', '-')}", str(path))]
    assert main(["doctor", *base, *FAST]) == 0
    assert main(["personalize", "ada.jpg", *fast, *base]) == 0
    expected, _ = files.read(here / "expected.safetensors", ("lora",))
    found, _ = files.read(here / "ada.safetensors", ("lora",))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)


def test_merge_and_info(here: Path, capsys: pytest.CaptureFixture):
    assert main(["personalize", "ada.jpg", "--meta-down", "random", *FAST, *TINY]) == 0
    assert main(["merge", "ada.adapter.safetensors", "--key-format", "kohya", "--out", "kohya.safetensors"]) == 0
    assert main(["info", "kohya.safetensors", "ada.adapter.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "kohya.safetensors: finished LoRA" in said
    assert "key names: kohya" in said
    assert main(["merge", "kohya.safetensors"]) == 1
    assert "is a finished LoRA file, but an adapter file is needed" in capsys.readouterr().err


def test_bad_input_is_one_sentence_without_a_traceback(here: Path, capsys: pytest.CaptureFixture):
    for command in (
        ["personalize", "missing.jpg", "--meta-down", "random"],
        ["personalize", "ada.jpg", "--backbone", "tiny", "--method", "meta-lora"],
        ["personalize", "ada.jpg", "--meta-down", "random", "--rank", "17"],
        ["personalize", "ada.jpg", "--meta-down", "random", "--out", "ada.ckpt"],
        ["generate", "--lora", "missing.safetensors", "--prompt", "x"],
        ["generate"],
        ["generate", "--prompts", "missing.txt"],
        ["generate", "--prompt", "x", "--width", "100"],
        ["generate", "--prompt", "x", "--device", "cuda:99"],
        ["generate", "--prompt", "x", "--backbone", "no/such-folder"],
        ["generate", "--prompt", "x", "--vae", "ae.safetensors"],
        ["generate", "--prompt", "x", "--vae", "ae.safetensors", "--backbone", "flux-dev"],
        ["info", "ada.jpg"],
        ["personalize", "ada.jpg", "--backbone", "miniature", "--transformer", "missing.safetensors"],
        ["personalize", "ada.jpg", "--backbone", "miniature", "--transformer", "ada.jpg"],
        ["personalize", "ada.jpg", "--backbone", "z-image", "--clip-l", "ada.jpg"],
        ["meta-train", "nowhere", "--out", "x.safetensors"],
        ["meta-train", PEOPLE, "--class", "cat", "--out", "x.safetensors"],
        ["meta-train", PEOPLE, "--class", "man", "--out", "x.ckpt"],
        ["meta-train", PEOPLE, "--class", "man", "--out", "x.safetensors", "--warmup-steps", "5000"],
    ):
        assert main(command) == 1, command
        said = capsys.readouterr().err
        assert said.startswith("metalora: ") or "\nmetalora: " in said, (command, said)
        assert "Traceback" not in said
    assert [path.name for path in here.iterdir()] == ["ada.jpg"]


def test_an_unknown_flag_or_value_is_wrong_usage(capsys: pytest.CaptureFixture):
    for command in (
        ["personalize", "a.jpg", "--stepz", "3"],
        ["personalize", "a.jpg", "--steps", "many"],
        ["nothing"],
        [],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2
        assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    ["crops", "personalize", "generate", "evaluate", "merge", "info", "doctor", "demo", "meta-train", "meta-down"]
    + [f"meta-down {kind}" for kind in ("inspect", "from-loras")],
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out) > 300 or command in ("info", "meta-down inspect")


def test_doctor_finds_everything_for_the_tiny_backbone_and_names_what_a_folder_lacks(
    here: Path, capsys: pytest.CaptureFixture
):
    assert main(["doctor", *TINY]) == 0
    said = capsys.readouterr().out
    assert "checksums are right" in said
    assert "fits: needs about" in said
    (here / "pipeline").mkdir()
    assert main(["doctor", "--backbone", str(here / "pipeline")]) == 1
    assert "PROBLEM" in capsys.readouterr().out
    code = main(["doctor", "--batch", "64", "--resolution", "2048", "--method", "lora", *TINY])
    verdict = re.search(r"lora, 2048 px, batch 64 (fits|does not fit): needs about \d+", capsys.readouterr().out)
    assert code == {"fits": 0, "does not fit": 1}[verdict.group(1)]


def test_doctor_knows_what_flux_dev_needs_before_it_is_there(here: Path, capsys: pytest.CaptureFixture, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor", "--backbone", "flux-dev", "--batch", "4", "--precision", "bf16"]) == 1
    said = capsys.readouterr().out
    needed = re.search(r"batch 4 does not fit: needs about ([\d.]+) GB, with gradient checkpointing ([\d.]+) GB", said)
    plain, checkpointed = map(float, needed.groups())
    assert 23.8 < checkpointed < plain
    assert "gated: accept its licence" in said


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_the_commands_of_readme_and_docs_exist_with_their_flags(page: Path):
    blocks = "\n".join(re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL)).replace("\\\n", " ")
    commands = [line for line in blocks.splitlines() if line.startswith("metalora ")]
    assert page.name != "README.md" or len(commands) >= 4
    for line in commands:
        make_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_the_readme_is_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_single_files_are_run_with_the_papers_defaults_and_are_named_in_the_next_command():
    def read(*flags: str) -> tuple[dict, str]:
        given = settings_of(make_parser().parse_args(["personalize", "ada.jpg", *flags]), PersonalizeSettings)
        return given, config_of(BaseConfig, given).defaults_of

    given, preset = read("--vae", "a b.safetensors")
    assert config_of(PersonalizeConfig, given, preset) == PersonalizeConfig()
    assert flags_of(given, BaseConfig) == ["--vae", "a b.safetensors"]
    assert config_of(PersonalizeConfig, *read(*TINY)).steps == PRESETS["tiny"]["steps"]


def test_every_folder_of_contributings_tree_exists():
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("## The tree")[1].split("##")[0]
    named = re.findall(
        r"`([\w./]+)`", "".join(line.split("|")[1] for line in tree.splitlines() if line.startswith("|"))
    )
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "metalora" / name).exists()] == []


def test_a_checkout_runs_without_being_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("metalora.cli.version", missing)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == "metalora (a checkout, not installed)\n"

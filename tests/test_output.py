"""What a terminal cannot print, and who stops reading."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metalora.config import Step
from metalora.jobs import Console
from metalora.store import files

ROOT = Path(__file__).parents[1]
NAME = "アダ Zoë.safetensors"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    files.write(tmp_path / NAME, {"x.down": torch.zeros(2, 2)}, "meta-down", {"base": "flux.1-dev", "domain": "女"})
    return tmp_path / NAME


def started(*words: str, **environment: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "metalora", *words], cwd=ROOT, env={**os.environ, **environment}, **pipes
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_name_in_another_script_is_printed_on_any_terminal(lora: Path, encoding: str):
    out, err = started("info", str(lora), PYTHONIOENCODING=encoding).communicate()
    assert b"Traceback" not in err
    assert ("女" if encoding == "utf-8" else r"\u5973") in out.decode(encoding)
    out, err = started("info", str(lora) + "漢", PYTHONIOENCODING=encoding).communicate()
    assert err.startswith(b"metalora: ")


def test_the_loss_of_a_bar_is_the_mean_of_the_last_steps(capsys: pytest.CaptureFixture):
    console = Console()
    for index in range(1, 41):
        console(Step(index, 40, float(index)))
    assert "40/40" in (said := capsys.readouterr().err)
    assert "loss 28.0000" in said, "of steps 16 to 40"


@pytest.mark.parametrize("words", [("info", NAME), ("personalize", "--help")])
def test_a_reader_that_leaves_ends_the_command_in_silence(lora: Path, words: tuple[str, ...]):
    process = started(*(str(lora) if word == NAME else word for word in words))
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() in ((141,) if words[0] == "info" else (0, 141)), "a newer argparse itself ends well"

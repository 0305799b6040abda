"""How a job ends before its time: signals, a dead partner, a plot that cannot be drawn, a reader who leaves."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from metalora.config import Step, UserError
from metalora.jobs import Console, optional_drawing, run, save_loss_curve
from metalora.jobs.benchmark import shares
from metalora.jobs.benchmark.shares import Partners, Share
from metalora.store import files

ROOT = Path(__file__).parents[1]
JOB = """
import sys, time
from pathlib import Path
from metalora import cli
from metalora.jobs import driven
from metalora.config import Step

def job(seconds):
    done = 0
    try:
        while True:
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                pass
            done += 1
            Path("began").touch()
            yield Step(done, 10**6, 0.5)
    except GeneratorExit:
        time.sleep(0.3)  # a save takes its time
        Path("saved").write_text(str(done))
        raise

class Parser:
    def __init__(self, command):
        pass
    def parse_args(self, arguments):
        return self
    def action(self, args):
        driven(job(float(sys.argv[1])))
cli.make_parser = Parser
sys.exit(cli.main([]))
"""


def started(folder: Path, seconds: float, **options: object) -> subprocess.Popen:
    """A command whose steps take so long, after its first step."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", JOB, str(seconds)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also where the tests run in the background
    settings = {"stderr": subprocess.PIPE, "preexec_fn": heard, **options}
    process = subprocess.Popen(words, cwd=folder, env=environment, **settings)
    while not (folder / "began").exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_job_after_its_step_and_what_was_done_is_saved(tmp_path: Path, name: str):
    process = started(tmp_path, 0.01)
    process.send_signal(signal.Signals[name])
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.Signals[name]
    assert int((tmp_path / "saved").read_text()) >= 1
    assert b"stopped. Repeat the same command to go on" in said
    assert b"Traceback" not in said


def test_several_signals_within_a_tenth_of_a_second_are_one_also_while_it_saves(tmp_path: Path):
    process = started(tmp_path, 0.2)
    for name in ("SIGINT", "SIGINT", "SIGTERM", "SIGINT", "SIGINT"):
        process.send_signal(signal.Signals[name])
        time.sleep(0.02)
    while process.poll() is None and not (tmp_path / "saved").exists():
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, said = process.communicate(timeout=60)
    assert (tmp_path / "saved").exists()
    assert b"stopped. Repeat" in said


def test_a_second_signal_later_ends_the_step_itself_and_says_what_is_lost(tmp_path: Path):
    process = started(tmp_path, 6.0)
    process.send_signal(signal.SIGINT)
    time.sleep(1.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=5)
    assert process.returncode == 130
    assert b"at once: what was done since the last save is lost" in said


def test_what_nohup_ignores_stays_ignored(tmp_path: Path):
    process = started(tmp_path, 0.01, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM


def test_a_terminal_that_is_closed_costs_nothing(tmp_path: Path):
    ours, theirs = pty.openpty()
    process = started(tmp_path, 0.01, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.close(ours)
    process.send_signal(signal.SIGHUP)  # the kernel sends it to the terminal's own session
    assert process.wait(60) == 128 + signal.SIGHUP
    assert (tmp_path / "saved").exists()


def endless(partner: Partners):
    yield from partner.wait_for({0: [1]}, lambda one: False)


def test_process_0_ends_with_a_sentence_when_a_partner_has_died_and_without_one_when_it_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests'); from test_stopping import *\n"
        "partner = Partners(Path(sys.argv[1]), Share(1, 2)); job = partner.present(endless(partner))\n"
        "next(job); print('there', flush=True); run(job)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "processes")]
    first = Partners(tmp_path / "processes", Share(0, 2))
    monkeypatch.setattr(shares, "JOINING", 1.0)
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        job = first.present(first.wait_for({1: ["a", "b"]}, lambda one: one == "b"))
        until = time.monotonic() + 3
        while time.monotonic() < until:
            next(job)  # it waits, and can be stopped
        process.kill()
    with pytest.raises(UserError, match="Process 1 of 2 is not there any more, and 1 of its 2 shares are not done"):
        run(job)
    assert not (tmp_path / "processes").exists()
    run(first.present(first.wait_for({1: ["a"]}, lambda one: True)))


def test_what_is_finished_is_not_refused_because_its_plot_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    said: list[str] = []
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with optional_drawing("x.loss.png", said):
        save_loss_curve(tmp_path / "x.loss.png", {"lora": [1.0]})
    assert "x.loss.png could not be drawn" in said[0]


NAME = "アダ Zoë.safetensors"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    files.write(tmp_path / NAME, {"x.down": torch.zeros(2, 2)}, "meta-down", {"base": "flux.1-dev", "domain": "女"})
    return tmp_path / NAME


def metalora_started(*words: str, **environment: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "metalora", *words], cwd=ROOT, env={**os.environ, **environment}, **pipes
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_name_in_another_script_is_printed_on_any_terminal(lora: Path, encoding: str):
    out, err = metalora_started("info", str(lora), PYTHONIOENCODING=encoding).communicate()
    assert b"Traceback" not in err
    assert ("女" if encoding == "utf-8" else r"\u5973") in out.decode(encoding)
    out, err = metalora_started("info", str(lora) + "漢", PYTHONIOENCODING=encoding).communicate()
    assert err.startswith(b"metalora: ")


def test_the_loss_of_a_bar_is_the_mean_of_the_last_steps(capsys: pytest.CaptureFixture):
    console = Console()
    for index in range(1, 41):
        console(Step(index, 40, float(index)))
    assert "40/40" in (said := capsys.readouterr().err)
    assert "loss 28.0000" in said, "of steps 16 to 40"


@pytest.mark.parametrize("words", [("info", NAME), ("personalize", "--help")])
def test_a_reader_that_leaves_ends_the_command_in_silence(lora: Path, words: tuple[str, ...]):
    process = metalora_started(*(str(lora) if word == NAME else word for word in words))
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() in ((141,) if words[0] == "info" else (0, 141)), "a newer argparse itself ends well"


def test_a_command_whose_output_is_closed_ends_without_a_traceback():
    words = f"{shlex.quote(sys.executable)} -m metalora --version >&-"
    ended = subprocess.run(words, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr

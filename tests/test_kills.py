"""Jobs that are killed or told to stop at random moments, and then finished, leave what undisturbed ones leave.

    METALORA_KILLS=300 METALORA_STOPS=100 nice -n 15 python -m pytest tests/test_kills.py -s

The processes are real, and killed with -9; only their imports are done before (tests/forked.py). A run is disturbed up
to three times before it may finish.
"""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from forked import Commands

from metalora.store.images import demo_portrait

KILLS, STOPS = (int(os.environ.get(f"METALORA_{name}", 3)) for name in ("KILLS", "STOPS"))
MOST = 3  # disturbances of a run
BENCHMARK = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"
TINY = "--backbone tiny --resolution 64 --save-every 2"
SMALL = f"{TINY} --learn-from whole"
JOBS = {
    "personalize": f"personalize ada.jpg --class woman --meta-down random --steps 6 {SMALL} --out ada.safetensors",
    "meta-train": f"meta-train people --steps 5 --batch 2 --validation-people 2 {TINY} --out people.safetensors",
    "benchmark run": "benchmark run run",
}
PLAN = (
    "benchmark plan run --meta-down random --methods lora --steps 4 --people 2 --prompts-each 1 --together 2 "
    f"--width 64 --height 64 --sampling-steps 1 --seeds 0 --clip none {TINY}"
)
RESULTS = {
    "personalize": ("ada.safetensors", "ada.adapter.safetensors"),
    "meta-train": ("people.safetensors", "people.run/steps.csv", "people.run/validation.csv"),
    "benchmark run": ("run/results.json",),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    """(commands, a folder with the inputs of every job)."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copy(demo_portrait(), folder / "ada.jpg")
    rows = [json.loads(line) for line in (BENCHMARK / "manifest.jsonl").read_text().splitlines()]
    for name in list(dict.fromkeys(row["identity"] for row in rows if row["part"] == "several-photos"))[:4]:
        (folder / "people" / name).mkdir(parents=True)
        for row in [row for row in rows if row["identity"] == name][:2]:
            shutil.copy(BENCHMARK / row["path"], folder / "people" / name)
    commands = Commands(tmp_path_factory.mktemp("cache"))
    assert finished(commands, folder, PLAN) == 0, (folder / "log").read_text()
    yield commands, folder
    commands.close()


def finished(commands: Commands, folder: Path, words: str) -> int:
    return commands.status(commands.start(folder, folder / "log", words.split()))


def disturbed(commands: Commands, folder: Path, words: str, after: float, how: signal.Signals) -> int | None:
    """Start, and send the signal after so many seconds; how it ended, None where it had ended before."""
    process = commands.start(folder, folder / "log", words.split())
    until = time.monotonic() + after
    while time.monotonic() < until:
        if commands.status(process, wait=False) is not None:
            return None
        time.sleep(min(0.02, max(0.0, until - time.monotonic())))
    os.kill(process, how)
    return commands.status(process)


def made(job: str, folder: Path) -> bool:
    """Whether a stage 1 has written its file: it refuses to make it again, even where the signal met the very exit."""
    return job == "meta-train" and (folder / RESULTS[job][0]).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "count"), [(signal.SIGKILL, KILLS), (signal.SIGTERM, STOPS)])
def test_what_was_disturbed_and_finished_is_as_if_it_had_not_been(prepared, tmp_path: Path, how, count: int):
    commands, inputs = prepared
    draw, done, runs = random.Random(int(how)), Counter(), Counter()
    whole, seconds = {}, {}
    for job, words in JOBS.items():
        folder = shutil.copytree(inputs, tmp_path / f"whole {job}")
        began = time.monotonic()
        assert finished(commands, folder, words) == 0, (folder / "log").read_text()
        seconds[job] = time.monotonic() - began
        whole[job] = {name: (folder / name).read_bytes() for name in RESULTS[job]}
    while sum(done.values()) < count:
        job = list(JOBS)[sum(runs.values()) % len(JOBS)]
        folder = shutil.copytree(inputs, tmp_path / f"{job} {runs[job]}")
        for _ in range(MOST):
            ended = disturbed(commands, folder, JOBS[job], draw.uniform(0, seconds[job]), how)
            if ended is None:
                break
            assert ended in (0, -how, 128 + how), (folder / "log").read_text()
            done[job] += 1
            if ended == 0 or made(job, folder):  # it was at its end already
                break
        began = time.monotonic()
        if not made(job, folder):
            ended = finished(commands, folder, JOBS[job])
            assert ended == 0 or "exists already" in (folder / "log").read_text().splitlines()[-1]
        seconds[job] = max(0.7 * seconds[job], min(seconds[job], time.monotonic() - began))
        for name, data in whole[job].items():
            assert (folder / name).read_bytes() == data, (folder, name)
        left = [path for path in folder.rglob("*") if path.suffix == ".partial" or ".state." in path.name]
        assert not left, (folder / "log").read_text()
        assert "Traceback" not in (folder / "log").read_text()
        runs[job] += 1
        shutil.rmtree(folder)
        print(f"{how.name}: {dict(done)} in {dict(runs)} runs, every one finished to the same bytes", flush=True)

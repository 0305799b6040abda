"""A benchmark run as real processes: killed at any point, and dealt to two, it ends with the same bytes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks import FLAGS, WITH_CLIP, finished, planned

from metalora.backbones.pipeline import PipelineBackbone
from metalora.store.cache import Cache

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SECONDS = 240  # a process that is still there then has hung
COMMAND = [sys.executable, "-m", "metalora.cli", "benchmark"]


@pytest.fixture(scope="module")
def expected(tiny: PipelineBackbone, warm_cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """results.json of one undisturbed run, in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    planned(folder, tiny, WITH_CLIP)
    return finished(folder, tiny, warm_cache)


@pytest.fixture
def folder(tmp_path: Path, warm_cache: Cache) -> Path:
    """A folder with the same plan, made by the command."""
    subprocess.run(
        [*COMMAND, "plan", str(tmp_path / "run"), *FLAGS],
        env=environment(warm_cache),
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    return tmp_path / "run"


def environment(cache: Cache) -> dict[str, str]:
    return {**os.environ, "METALORA_CACHE": str(cache.folder), "OMP_NUM_THREADS": "1"}


def started(folder: Path, cache: Cache) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "run", str(folder)],
        env=environment(cache),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def killed_when(folder: Path, cache: Cache, pattern: str, count: int) -> None:
    """Start the run, and `kill -9` it as soon as so many files match."""
    process = started(folder, cache)
    until = time.monotonic() + SECONDS
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None, f"the run ended before {pattern} was there"
        assert time.monotonic() < until, f"{pattern} never was there"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "results.json").exists()


def test_killed_in_training_among_images_and_while_scoring_it_ends_with_the_same_bytes(
    folder: Path, warm_cache: Cache, expected: bytes
):
    killed_when(folder, warm_cache, "states/*.safetensors", 1)
    killed_when(folder, warm_cache, "loras/lora-3-r1/*.safetensors", 1)
    killed_when(folder, warm_cache, "images/*/*/*.png", 5)
    killed_when(folder, warm_cache, "scores/*/*.json", 2)
    process = started(folder, warm_cache)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said.decode()[-2000:]
    assert (folder / "results.json").read_bytes() == expected
    assert not list(folder.glob("states/*.safetensors"))


def test_two_processes_give_the_json_of_one(folder: Path, warm_cache: Cache, expected: bytes):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    result = subprocess.run(
        [*torchrun, "-m", "metalora.cli", "benchmark", "run", str(folder)],
        env=environment(warm_cache),
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    assert (folder / "results.json").read_bytes() == expected

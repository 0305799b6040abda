"""Fixtures that several tests share."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from comfyui_server import Server, serving
from runs import personalized
from toy import ToyDenoiser, ToyNetwork

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.tiny_flux import TinyFlux
from metalora.jobs.personalize import Personalized
from metalora.store.cache import Cache
from metalora.store.images import demo_portrait

CPU = torch.device("cpu")
torch.set_num_threads(1)  # the tensors are small: several threads would mostly wait for each other


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what the nodes were tested on."""
    path = os.environ.get("COMFYUI_PATH")
    recorded = "schemas recorded from a real one; COMFYUI_PATH=CHECKOUT tests the real thing"
    terminalreporter.write_line(f"ComfyUI: {path or recorded}")


@pytest.fixture(autouse=True)
def one_seed() -> None:
    """What a test draws without a generator is the same in every run, so that a bound on rounding holds or does not."""
    torch.manual_seed(0)


@pytest.fixture
def toy(one_seed: None) -> ToyNetwork:
    return ToyNetwork().requires_grad_(False)


@pytest.fixture
def denoiser(toy: ToyNetwork) -> ToyDenoiser:
    return ToyDenoiser(toy)


@pytest.fixture(scope="session")
def tiny() -> PipelineBackbone:
    """The tiny FLUX: the real classes, random weights."""
    return PipelineBackbone(TinyFlux(), CPU, torch.float32)


@pytest.fixture(scope="session")
def portrait() -> Path:
    """A real photograph with one face."""
    return demo_portrait()


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One cache for all tests that do not test the cache: the portrait's crops are encoded once."""
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def personalize(tiny: PipelineBackbone, portrait: Path, warm_cache: Cache) -> Callable[..., Personalized]:
    """`runs.personalized` on the tiny FLUX and the portrait: what remains is where to, and how."""
    return partial(personalized, tiny, warm_cache, portrait)


@pytest.fixture
def here(tmp_path: Path, warm_cache: Cache, portrait: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the portrait in it as ada.jpg, and the shared cache."""
    monkeypatch.setenv("METALORA_CACHE", str(warm_cache.folder))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ada.jpg").write_bytes(portrait.read_bytes())
    return tmp_path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running ComfyUI with the pack."""
    with serving(tmp_path_factory.mktemp("comfyui") / "base") as running:
        yield running

"""The Meta-Train node's own work on the stand-in, with the tiny FLUX as the model: from photos to a file that loads."""

import importlib
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfy_standin import PACK, ROOT, pack_on_the_standin

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import PersonalizeConfig
from metalora.jobs.info import describe
from metalora.jobs.training_files import starting_adapters
from metalora.store import files

pytestmark = pytest.mark.slow

PHOTOS = ROOT / "metalora" / "data" / "mini_benchmark" / "photos"
OPTIONS = {"steps": 4, "bucket_steps": 0, "batch": 2, "resolution": 64, "validation_people": 2, "seed": 0}
OPTIONS |= {"class_name": "all", "gradient_checkpointing": False, "preview": "images", "preview_every": 2}
GB_80 = 80 * 10**9


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for photo in sorted(PHOTOS.glob("30000[0-3]-[0-2].jpg")):
        person, _, number = photo.name.partition("-")
        (tmp_path / "people" / person).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "people" / person / number)
    return tmp_path / "people"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The node, and what its preview showed."""
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path / "cache"))
    with pack_on_the_standin():
        yield prepared(tmp_path)


def prepared(folder: Path) -> SimpleNamespace:
    def module(name: str):
        return importlib.import_module(f"{PACK}.{name}")

    training, bridge, pipeline = (
        module("nodes.meta_training"),
        module("nodes.bridge"),
        module("metalora.backbones.pipeline"),
    )
    shown: list[object] = []

    class Backbone(pipeline.PipelineBackbone):
        """As ComfyBackbone: previews find the denoiser on it."""

        current, training_memory, vae, needs_cfg = None, 0, None, False

        @contextmanager
        def denoiser(self):
            with super().denoiser() as self.current:
                yield self.current

    tiny = Backbone(module("metalora.backbones.tiny_flux").TinyFlux(), torch.device("cpu"), torch.float32)
    training.ComfyBackbone = lambda *_model_clip_and_vae: tiny
    training.io.NodeOutput = lambda *outputs, ui: outputs
    training.ui.PreviewText = str
    bridge.folders.__dict__.update(
        FOLDER="meta_lora",
        MADE="meta_downs",
        plain_name=str,
        allowed_path=Path,
        output_folder=lambda *parts: folder.joinpath(*parts),
    )
    bridge.execution.__dict__.update(
        stop_if_cancelled=lambda: None,
        progress_bar=lambda: lambda index, total, image: shown.append(image) if image else None,
    )
    bridge.devices.__dict__.update(
        total_memory=lambda device: GB_80, free_device=lambda device, need: None, fits_beside=lambda *_what: True
    )
    return SimpleNamespace(run=training.MetaTrain.execute, shown=shown, backbone=tiny, devices=bridge.devices)


@pytest.mark.parametrize("preset", ["miniature", "paper"])
def test_photos_become_a_meta_down_that_a_training_starts_from(
    node, dataset: Path, tiny: PipelineBackbone, preset: str, monkeypatch: pytest.MonkeyPatch
):
    down, progress, file = node.run(None, None, None, str(dataset), "world", preset, **OPTIONS)
    assert (down.source, progress.ndim, len(node.shown)) == (file, 4, 2)
    assert node.backbone.training_memory > 0
    tensors, metadata = files.read(Path(file), ("meta-down",))
    across = preset == "miniature"
    assert any(name.startswith("generator.") for name in tensors) == across
    assert metadata["objective"] == ("across-photos" if across else "paper")
    assert metadata["people"] == "2"
    about = describe(Path(file))
    assert f"trained by stage 1: {metadata['objective']}" in about
    assert ("loss on unseen people: own face " if across else "loss on unseen people: before ") in about
    assert ("face embedder, its hash: " in about) == across
    adapters, origin = starting_adapters(tiny, PersonalizeConfig(method="meta-lora", rank=16), file)
    assert torch.equal(next(iter(adapters.by_name.values())).down, tensors[f"{next(iter(adapters.by_name))}.down"])
    assert origin["meta_domain"] == "all"


def test_a_preview_of_a_step_that_was_validated_shows_heads(node, dataset: Path, monkeypatch: pytest.MonkeyPatch):
    gains = []
    previews = importlib.import_module(f"{PACK}.nodes.previews")
    objectives = importlib.import_module(f"{PACK}.metalora.jobs.meta_train.objectives")
    runs = []
    made = objectives.AcrossRun.__init__
    monkeypatch.setattr(
        objectives.AcrossRun, "__init__", lambda self, *given: (made(self, *given), runs.append(self))[0]
    )

    def sampled(preview):
        adapter = next(iter(runs[0].training.by_name.values()))
        gains.append(adapter.gains.clone())
        return torch.zeros(preview.count, 4, 8, 8)

    monkeypatch.setattr(previews.ImagePreview, "sampled", sampled)
    monkeypatch.setattr(previews.ImagePreview, "decoded", lambda preview, latents: torch.zeros(3, 64, 64))
    node.run(None, None, None, str(dataset), "seen", "miniature", **OPTIONS)
    assert len(gains) == 2
    assert all(len(one) == OPTIONS["batch"] and one.abs().min() > 0 for one in gains)  # the second after a validation


def test_what_cannot_fit_is_refused_before_photos_are_read(node, dataset: Path):
    node.devices.total_memory = lambda device: int(1.52e9)
    options = OPTIONS | {"resolution": 1024, "batch": 16}
    with pytest.raises(Exception, match=r"beside the model, .* With batch 1 and gradient_checkpointing on, \d+ x \d+"):
        node.run(None, None, None, str(dataset), "large", "flux", **options)


def test_zero_leaves_to_the_preset_what_it_decides(node, dataset: Path):
    options = OPTIONS | {"validation_people": 0, "preview": "none"}
    with pytest.raises(Exception, match="4 people, 4 of them held out"):
        node.run(None, None, None, str(dataset), "preset", "paper", **options)

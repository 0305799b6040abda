"""DINO scores come from the real classes of transformers, here with random weights saved to a folder."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import portrait
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model, ViTConfig, ViTImageProcessor, ViTModel

from metalora.config import UserError
from metalora.measure.dino import DinoScorer, load_dino

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module", params=["vit", "dinov2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    if request.param == "vit":
        ViTModel(ViTConfig(image_size=64, patch_size=16, **SMALL), add_pooling_layer=False).save_pretrained(path)
        ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(path)
    else:
        Dinov2Model(Dinov2Config(image_size=56, patch_size=14, **SMALL)).save_pretrained(path)
        BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def dino(folder: Path) -> DinoScorer:
    return load_dino(str(folder))


def pictures() -> list[torch.Tensor]:
    whole = (portrait() * 255).round().byte()
    return [whole, whole[:, :300], 255 - whole]


@torch.no_grad()
def test_a_picture_is_the_class_token_of_transformers_own_pipeline(dino: DinoScorer, folder: Path):
    kind = ViTModel if folder.name.startswith("vit") else Dinov2Model
    processing = ViTImageProcessor if kind is ViTModel else BitImageProcessor
    model, processor = kind.from_pretrained(folder).eval(), processing.from_pretrained(folder)
    images = [np.ascontiguousarray(picture.permute(1, 2, 0)) for picture in pictures()]
    tokens = torch.cat([model(**processor(image, return_tensors="pt")).last_hidden_state[:, 0] for image in images])
    expected = tokens / tokens.norm(dim=1, keepdim=True)
    found = dino.images(pictures())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found[0], found[2], atol=1e-3), "the comparison would see a difference"


def test_many_at_once_are_embedded_as_one_by_one(dino: DinoScorer):
    together = dino.images(pictures())
    torch.testing.assert_close(together, torch.cat([dino.images([picture]) for picture in pictures()]))
    assert dino.images([]).numel() == 0


def test_a_dino_says_which_weights_it_has(dino: DinoScorer, folder: Path):
    assert dino.name == f"dino-{folder.name}"
    assert dino.digest == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_what_is_not_there_or_no_dino_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(name: str, allow_patterns: list[str]) -> str:
        raise FileNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"no folder facebook/dino-vits16.*could not be fetched"):
        load_dino()
    with pytest.raises(UserError, match=r"config\.json and preprocessor_config\.json are not in it"):
        load_dino(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="has no weights"):
        load_dino(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="of type 'bert'"):
        load_dino(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UserError, match="cannot be opened as a DINO"):
        load_dino(str(tmp_path))

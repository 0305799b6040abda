"""CLIP scores are open_clip's own, by a pipeline written out here; too long prompts are named, bad names refused."""

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import empty_wall
from PIL import Image
from runs import python

from metalora.config import UserError
from metalora.measure import clip as clip_module
from metalora.measure.clip import ClipScorer, load_clip
from metalora.store.images import demo_portrait

DATA = Path(__file__).parents[1] / "metalora" / "data"
PICTURES = [demo_portrait(), *sorted((DATA / "portraits").glob("*.jpg"))]
PROMPTS = ["a photo of a woman", "a photo of a man, blue room background", "a photo of a woman, smiling face"]


def test_without_open_clip_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install open_clip_torch"):
        load_clip()


def test_a_torchvision_of_another_torch_is_a_sentence_and_no_end_of_a_demo(tmp_path: Path):
    broken = tmp_path / "torchvision" / "__init__.py"
    broken.parent.mkdir()
    broken.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    code = "from metalora.measure.clip import clip_problem; print(clip_problem())"
    said = python(code, PYTHONPATH=os.pathsep.join([str(tmp_path), str(DATA.parents[1])])).stdout
    assert "nms does not exist" in said
    assert "--force-reinstall torch torchvision" in said


open_clip = pytest.importorskip("open_clip", reason="CLIP scores come from open_clip: pip install -e .[clip]")


@pytest.fixture(scope="module")
def clip() -> ClipScorer:
    return load_clip("miniature")


def as_bytes(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


@torch.no_grad()
def test_scores_equal_open_clips_reference_pipeline(clip: ClipScorer):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{DATA / 'clip'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{DATA / 'clip'}")
    model.eval()
    image = torch.cat([model.encode_image(preprocess(Image.open(path))[None]) for path in PICTURES])
    text = model.encode_text(tokenizer(PROMPTS))
    image, text = (features / features.norm(dim=-1, keepdim=True) for features in (image, text))
    pictures = [as_bytes(path) for path in PICTURES]
    torch.testing.assert_close(clip.images(pictures), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(clip.texts(PROMPTS), text, rtol=0, atol=1e-5)
    clip_t = 100 * clip.images(pictures) @ clip.texts(PROMPTS).T
    torch.testing.assert_close(clip_t, 100 * image @ text.T, rtol=0, atol=1e-3)
    assert clip_t.std() > 0.5, "the comparison would see a difference"


def test_pictures_of_other_sizes_and_many_at_once_are_embedded_alike(clip: ClipScorer, monkeypatch):
    pictures = [as_bytes(PICTURES[0]), (empty_wall(300, 200) * 255).byte(), as_bytes(PICTURES[1])] * 2
    monkeypatch.setattr(clip_module, "BATCH", 4)
    together = clip.images(pictures)
    torch.testing.assert_close(together, torch.cat([clip.images([picture]) for picture in pictures]))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(6))
    assert clip.images([]).numel() == clip.texts([]).numel() == 0


def test_a_prompt_that_is_too_long_keeps_its_end_and_is_named(clip: ClipScorer):
    phrase = "a photo of a man, "
    fitting = [text for text in (phrase * count for count in range(1, 12)) if text not in clip.truncated([text])]
    longest = max(fitting, key=len)
    longer = longest + phrase
    assert clip.truncated([longest, longer, "a photo of a woman"]) == [longer]
    tokens = clip._tokens([longer])
    assert tokens.shape == (1, clip.context_length)
    assert clip_module.end_of(tokens) == clip.context_length - 1
    assert torch.isfinite(clip.texts([longer])).all()


def test_a_folder_opens_and_what_is_missing_in_it_is_named(clip: ClipScorer, tmp_path: Path):
    folder = tmp_path / "own"
    shutil.copytree(DATA / "clip", folder)
    assert load_clip(str(folder)).digest == clip.digest
    assert clip.digest == hashlib.sha256((DATA / "clip" / "open_clip_model.safetensors").read_bytes()).hexdigest()
    assert clip.name == "clip-miniature"
    (folder / "open_clip_model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"cannot open .*open_clip_model\.safetensors"):
        load_clip(str(folder))
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        load_clip(str(folder))
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match=r"has no open_clip_config\.json"):
        load_clip(str(folder))
    with pytest.raises(UserError, match="neither 'miniature' nor 'openai'"):
        load_clip("vit-huge")


def test_openais_weights_are_read_from_a_file_into_the_model_they_were_trained_in(tmp_path: Path):
    """Its activation is QuickGELU: the same weights in open_clip's plain ViT-B-32 give other numbers."""
    torch.manual_seed(0)
    expected = open_clip.create_model("ViT-B-32-quickgelu").eval()
    torch.save(expected.state_dict(), tmp_path / "vit.pt")
    scorer = load_clip(str(tmp_path / "vit.pt"))
    assert scorer.context_length == 77
    with torch.no_grad():
        text = expected.encode_text(open_clip.get_tokenizer("ViT-B-32")(PROMPTS), normalize=True)
    torch.testing.assert_close(scorer.texts(PROMPTS), text, rtol=0, atol=1e-5)


def test_openais_clip_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    def unreachable(known: dict) -> str:
        assert "vit_base_patch32_clip_224.openai" in known["hf_hub"]
        raise FileNotFoundError("no network")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", unreachable)
    with pytest.raises(UserError, match=r"neither on this machine nor .* fetch it.*give its file or folder"):
        load_clip("openai")

"""The small CLIP: what it is trained on, that training works and resumes, that the exported one is the trained one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

pytest.importorskip("open_clip", reason="the small CLIP is a class of open_clip: pip install -e .[clip]")

from open_clip.model import CLIP
from runs import losses_around_a_stop

from metalora.measure.clip import load_clip
from tools.miniature import autoencoder, captions, check_clip, train_clip
from tools.miniature.looks import COLOURS
from tools.miniature.photos import Photos, to_signal
from tools.miniature.text import clip_tokenizer
from tools.miniature.training import Training

DATA = Path(__file__).parents[1] / "metalora" / "data"
VISION = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
TEXT = train_clip.TEXT | {"width": 16, "heads": 2, "layers": 1}
TINY = train_clip.config(VISION, TEXT, embed_dim=16)


@pytest.fixture(scope="module")
def photos() -> Photos:
    """32 x 32 pixels of a wall: its colour is all there is to say."""
    rng = np.random.default_rng(0)
    names = [str(rng.choice(list(COLOURS))) for _ in range(48)]
    walls = np.stack([np.full((3, 32, 32), 255) * np.array(COLOURS[name])[:, None, None] for name in names])
    pixels = torch.from_numpy(walls + rng.normal(0, 4, walls.shape)).clamp(0, 255).byte()
    return Photos(pixels, np.arange(48), [{"background": f"{name} studio", "turn": "left"} for name in names])


def training(folder, steps: int) -> Training:
    return train_clip.start(folder / "state.pt", TINY, steps, torch.device("cpu"))


def test_a_caption_speaks_of_some_attributes_and_of_each_alone_of_the_photos_that_have_it():
    attributes = {"kind": "man", "turn": "left", "light": "soft"}
    generator = torch.Generator().manual_seed(0)
    heard = [captions.understand(train_clip.said(attributes, generator)) for _ in range(100)]
    assert all(one.items() <= attributes.items() for one in heard)
    assert attributes in heard
    for name, value in attributes.items():
        assert {name: value} in heard
    known = [{"kind": "man", "beard": "stubble"}, {"kind": "woman"}]
    (several, alone), *others = train_clip.sayings(known, torch.Generator().manual_seed(0))
    assert several == [0, 1]
    assert all(captions.understand(one).items() <= known[at].items() for at, one in zip(several, alone, strict=True))
    assert others == [([0, 1], ["a photo of a man", "a photo of a woman"]), ([0], ["stubble"])]


def test_a_trained_and_exported_clip_reads_what_a_photo_shows(photos, tmp_path):
    trained = training(tmp_path, 60)
    losses = [step.figures["loss"] for step in trained.run(train_clip.loss_on(photos, 24))]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.4  # log(24) of it is the turn, which nothing shows
    train_clip.export(train_clip.settled(trained.averaged(), photos), TINY, tmp_path, {"made_by": "a test"})
    chosen = check_clip.choices(load_clip(str(tmp_path)), photos)["background"]
    right = [one.split()[0] == two["background"].split()[0] for one, two in zip(chosen, photos.attributes, strict=True)]
    assert np.mean(right) > 0.5  # of ten colours


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(photos, tmp_path):
    loss = train_clip.loss_on(photos, 8)
    whole, parts = losses_around_a_stop(lambda name: training(tmp_path / name, 4), lambda one: one.run(loss))
    assert parts == pytest.approx(whole, rel=1e-4)


@torch.no_grad()
def test_the_exported_folder_is_opened_by_open_clip_and_reads_the_same(photos, tmp_path):
    torch.manual_seed(0)
    model = train_clip.settled(CLIP(**TINY), photos)
    train_clip.export(model, TINY, tmp_path, {"made_by": "a test"})
    opened, caption = load_clip(str(tmp_path)), "a photo of a man, blue room background"
    images = model.encode_image(to_signal(photos.pixels[:4]), normalize=True)
    texts = model.encode_text(train_clip.tokens_of([caption], clip_tokenizer()), normalize=True)
    torch.testing.assert_close(opened.images(list(photos.pixels[:4])), images, atol=5e-3, rtol=0)
    torch.testing.assert_close(opened.texts([caption]), texts, atol=5e-3, rtol=0)


def test_the_shipped_clip_reads_hair_that_has_passed_the_autoencoder():
    rows = [json.loads(line) for line in (DATA / "mini_benchmark" / "manifest.jsonl").read_text().splitlines()][:96]
    pixels = [np.asarray(Image.open(DATA / "mini_benchmark" / row["path"])) for row in rows]
    real = Photos(
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), np.arange(96), [r["attributes"] for r in rows]
    )
    shown = autoencoder.shown_by(AutoencoderKL.from_pretrained(DATA / "miniature" / "vae").eval(), real)
    assert not torch.equal(shown.pixels, real.pixels)
    clip = load_clip("miniature")
    read = [check_clip.accuracies(check_clip.choices(clip, one), one.attributes)["hair"] for one in (real, shown)]
    assert min(read) > 0.8  # of 41; one that had seen renders alone read 0.84 and 0.69


def test_the_longest_caption_fits():
    tokenizer = clip_tokenizer()
    phrases = [
        max(values.values(), key=lambda one: len(tokenizer(one).input_ids)) for values in captions.PHRASES.values()
    ]
    assert len(tokenizer(", ".join(phrases)).input_ids) <= train_clip.TOKENS


def test_accuracy_counts_only_photos_that_have_the_attribute():
    truth = [
        {"kind": "man", "beard": "stubble"},
        {"kind": "woman"},
        {"kind": "woman"},
        {"kind": "man", "beard": "beard"},
    ]
    chosen = {"kind": ["man", "man", "woman", "man"], "beard": ["stubble", "beard", "beard", "shaven"]}
    assert check_clip.accuracies(chosen, truth) == {"kind": 0.75, "beard": 0.5}

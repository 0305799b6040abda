"""The small CLIP: what it is trained on, that training works and resumes, that the exported one is the trained one."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("open_clip", reason="the small CLIP is a class of open_clip: pip install -e .[clip]")

from tools.miniature import captions, check_clip, clip_model, train_clip
from tools.miniature.looks import COLOURS
from tools.miniature.photos import Photos, to_signal
from tools.miniature.text import clip_tokenizer
from tools.miniature.training import Training

VISION = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
TEXT = clip_model.TEXT | {"width": 16, "heads": 2, "layers": 1}
TINY = clip_model.config(VISION, TEXT, embed_dim=16)


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


def test_a_caption_speaks_of_some_of_the_attributes_and_of_each_sometimes_alone():
    attributes = {"kind": "man", "turn": "left", "light": "soft"}
    generator = torch.Generator().manual_seed(0)
    heard = [captions.understand(clip_model.said(attributes, generator)) for _ in range(100)]
    assert all(one.items() <= attributes.items() for one in heard)
    assert attributes in heard
    for name, value in attributes.items():
        assert {name: value} in heard


def test_every_attribute_is_also_said_alone_of_the_photos_that_have_it():
    known = [{"kind": "man", "beard": "stubble"}, {"kind": "woman"}]
    (several, alone), *others = clip_model.sayings(known, torch.Generator().manual_seed(0))
    assert several == [0, 1]
    assert all(captions.understand(one).items() <= known[at].items() for at, one in zip(several, alone, strict=True))
    assert others == [([0, 1], ["a photo of a man", "a photo of a woman"]), ([0], ["stubble"])]


def test_a_batch_shows_no_photo_twice_and_mirrors_some(photos):
    index, flips, pixels = train_clip.drawn(photos, 40, torch.Generator().manual_seed(0))
    assert len(set(index.tolist())) == 40
    assert 0 < flips.sum() < 40
    real = to_signal(photos.pixels[index])
    assert torch.equal(pixels[flips], real[flips].flip(3))
    assert torch.equal(pixels[~flips], real[~flips])


def test_training_lowers_the_loss(photos, tmp_path):
    losses = [
        step.figures["loss"] for step in training(tmp_path, 60).run(train_clip.loss_on(photos, 24, clip_tokenizer()))
    ]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.4  # log(24) of it is the turn, which nothing shows


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(photos, tmp_path):
    loss = train_clip.loss_on(photos, 8, clip_tokenizer())
    whole = [step.figures["loss"] for step in training(tmp_path / "whole", 4).run(loss)]
    first = training(tmp_path / "parts", 4)
    steps = first.run(loss)
    parts = [next(steps).figures["loss"], next(steps).figures["loss"]]
    first.save()
    parts += [step.figures["loss"] for step in training(tmp_path / "parts", 4).run(loss)]
    assert parts == pytest.approx(whole, rel=1e-4)


def test_settled_norms_forget_what_they_knew(photos):
    torch.manual_seed(0)
    model = clip_model.new_clip(TINY).eval()
    before = train_clip.settled(model, photos).encode_image(to_signal(photos.pixels[:4]))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.fill_(7.0)
    after = train_clip.settled(model, photos).encode_image(to_signal(photos.pixels[:4]))
    assert not model.training
    torch.testing.assert_close(after, before)


def test_the_exported_folder_is_opened_by_open_clip_and_reads_the_same(photos, tmp_path):
    torch.manual_seed(0)
    model = train_clip.settled(clip_model.new_clip(TINY), photos)
    kept = clip_model.kept_tokenizer(tmp_path / "tokenizer")
    clip_model.export(model, TINY, kept, tmp_path / "clip", {"made_by": "a test"})
    opened, tokenizer = clip_model.open_exported(tmp_path / "clip")
    caption = "a photo of a man, blue room background"
    ours = clip_model.tokens_of([caption], clip_model.kept_tokenizer(tmp_path / "tokenizer"))
    assert torch.equal(tokenizer([caption]), ours)
    image = to_signal(photos.pixels[:4])
    for one, other in (
        (model.encode_image(image, normalize=True), opened.encode_image(image, normalize=True)),
        (
            model.encode_text(ours, normalize=True),
            opened.encode_text(tokenizer([caption]), normalize=True),
        ),
    ):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=0)
    stored = json.loads((tmp_path / "clip" / "open_clip_config.json").read_text())
    assert stored["preprocess_cfg"]["mean"] == [0.5, 0.5, 0.5]


def test_the_longest_caption_fits():
    tokenizer = clip_tokenizer()
    longest = {
        name: max(phrases, key=lambda one: len(tokenizer(phrases[one]).input_ids))
        for name, phrases in captions.PHRASES.items()
    }
    assert len(tokenizer(captions.describe(longest)).input_ids) <= clip_model.TOKENS


def test_the_nearest_text_is_the_one_of_the_same_direction():
    images = torch.tensor([[2.0, 0.1], [0.1, 5.0], [-1.0, 0.0]])
    texts = torch.tensor([[0.0, 0.3], [9.0, 0.0], [-0.5, 0.1]])
    assert check_clip.nearest(images, texts).tolist() == [1, 0, 2]


def test_accuracy_counts_only_photos_that_have_the_attribute():
    truth = [
        {"kind": "man", "beard": "stubble"},
        {"kind": "woman"},
        {"kind": "woman"},
        {"kind": "man", "beard": "beard"},
    ]
    chosen = {"kind": ["man", "man", "woman", "man"], "beard": ["stubble", "beard", "beard", "shaven"]}
    assert check_clip.accuracies(chosen, truth) == {"kind": 0.75, "beard": 0.5}
    assert check_clip.mistakes(chosen["kind"], truth, "kind") == {"woman -> man": 1}

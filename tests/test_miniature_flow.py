"""The miniature's FLUX: its text side, its start, its training that can stop, and the folder it is exported to."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline
from runs import losses_around_a_stop
from tokenizers import Tokenizer

from metalora.method.crops import Box
from tools.miniature import autoencoder, captions, train_flow, train_guidance
from tools.miniature.captions import VOCABULARY
from tools.miniature.flow_model import LEFT_OUT, SHAPE, MiniatureFlux, spoken
from tools.miniature.latents import (
    FACE,
    STEP,
    Latents,
    face_weights,
    from_bytes,
    read_latents,
    to_bytes,
    write_latents,
)
from tools.miniature.people import person
from tools.miniature.photo import photo
from tools.miniature.text import CLIP_TOKENS, T5_TOKENS, clip_tokenizer, t5_tokenizer
from tools.miniature.training import Training

TINY = replace(SHAPE, double_blocks=1, single_blocks=1, width=128)


@pytest.fixture(scope="module")
def flux() -> MiniatureFlux:
    torch.manual_seed(0)
    return MiniatureFlux(TINY).eval()


def latents() -> Latents:
    generator = torch.Generator().manual_seed(3)
    attributes = [photo(person(number), 0).attributes for number in range(6)]
    faces = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(6, 1)
    return Latents(to_bytes(torch.randn(2, 6, 16, 4, 4, generator=generator)), attributes, faces)


def awake() -> MiniatureFlux:
    """A model whose every input matters, as after a training."""
    torch.manual_seed(1)
    model = MiniatureFlux(TINY).eval().requires_grad_(False)
    for weight in model.transformer.parameters():
        weight.add_(0.05 * torch.randn_like(weight))
    return model


def test_every_word_is_one_token_and_the_longest_caption_fits():
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    assert [word for word in VOCABULARY if len(t5.tokenize(word)) != 1] == []
    assert [word for word in VOCABULARY if len(clip.tokenize(word)) != 1] == ["striped-shirt", "t-shirt", "v-neck"]
    parts = {part for word in VOCABULARY for part in word.split("-")}
    assert [part for part in parts if len(clip.tokenize(part)) != 1] == []
    longest = [max(values.values(), key=lambda phrase: len(phrase.split())) for values in captions.PHRASES.values()]
    assert len(t5_tokenizer()(", ".join(longest)).input_ids) <= T5_TOKENS
    assert len(clip_tokenizer()(", ".join(longest)).input_ids) <= CLIP_TOKENS


def test_the_tokenizers_are_the_ones_that_the_shipped_weights_know():
    shipped = Path(__file__).parents[1] / "metalora" / "data" / "miniature"
    for name, made in (("tokenizer", clip_tokenizer()), ("tokenizer_2", t5_tokenizer())):
        known = Tokenizer.from_file(str(shipped / name / "tokenizer.json"))
        assert made.get_vocab() == known.get_vocab()
        caption = captions.describe(photo(person(0), 0).attributes) + ", a word like zyx"
        assert made(caption).input_ids == known.encode(caption).ids


def test_what_is_said_is_a_part_of_what_is_there():
    generator, attributes = torch.Generator().manual_seed(0), photo(person(1), 0).attributes
    said = [spoken(attributes, generator) for _ in range(300)]
    assert "" in said
    understood = [captions.understand(caption) for caption in said if caption]
    assert all(part.items() <= attributes.items() for part in understood)
    without_light = np.mean(["light" not in part for part in understood])
    assert without_light == pytest.approx(LEFT_OUT["light"], abs=0.08)


def test_at_birth_it_predicts_nothing(flux):
    with torch.no_grad():
        prompt = flux.text(*flux.text.ids(["a photo of a man"]))
        velocity = flux.velocity(torch.randn(1, 16, 4, 4), torch.tensor([0.5]), *prompt)
    assert velocity.abs().max() == 0


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped_whoever_draws(tmp_path):
    workers = iter((0, 0, 2))  # of a run in one go, of one that is stopped, of what follows it

    def run(one: Training) -> Iterator:
        draw = train_flow.draw_from(latents(), batch=2, text=one.model.text)
        return one.run(train_flow.loss, draw, next(workers))

    whole, parts = losses_around_a_stop(
        lambda name: train_flow.start(tmp_path / name, TINY, 4, torch.device("cpu")), run
    )
    assert parts == pytest.approx(whole, rel=1e-2)  # bfloat16


def test_a_checkpoint_of_another_size_is_refused(tmp_path):
    train_flow.start(tmp_path, TINY, 1, torch.device("cpu"))
    with pytest.raises(SystemExit, match="Choose another --out"):
        train_flow.start(tmp_path, replace(TINY, double_blocks=2), 1, torch.device("cpu"))


def test_a_distilled_student_learns_what_guidance_does_and_leaves_the_words_alone(tmp_path):
    teacher = awake()
    training = Training(tmp_path / "guided.pt", train_guidance.student_of(teacher), 60, peak_rate=2e-3)
    steps = training.run(train_guidance.loss_on(latents(), teacher, batch=4))
    losses = [float(step.figures["loss"]) for step in steps]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    for learned, given in zip(training.model.text.parameters(), teacher.text.parameters(), strict=True):
        assert torch.equal(learned, given)


def test_at_strength_one_guidance_is_the_captions_own_velocity():
    model, weak, t = awake(), awake(), torch.tensor([0.5])
    tokens, pooled = model.text(*model.text.ids(["a photo of a man"]))
    noisy = torch.randn(1, 16, 4, 4)
    plain = model.velocity(noisy, t, tokens, pooled)
    torch.nn.init.zeros_(weak.transformer.proj_out.weight)
    for other in (None, weak):
        guided = model.guided(noisy, t, tokens, pooled, torch.ones(1), other)
        torch.testing.assert_close(guided, plain, atol=1e-5, rtol=1e-5)
    away, far = (model.guided(noisy, t, tokens, pooled, torch.full((1,), 2.0), other) for other in (None, weak))
    assert not torch.allclose(away, far), "a weaker model leads elsewhere"


def test_the_exported_folder_opens_and_draws(tmp_path, flux):
    small = {"block_out_channels": (4, 8, 16, 16), "norm_num_groups": 2}
    flux.pipeline(AutoencoderKL(**autoencoder.CONFIG | small)).save_pretrained(tmp_path)
    pipeline = FluxPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    prompt = "a photo of a woman, blue room background"
    made = pipeline(prompt, height=32, width=32, num_inference_steps=2, max_sequence_length=T5_TOKENS, output_type="np")
    assert made.images.shape == (1, 32, 32, 3)
    again = train_flow.start(tmp_path / "on", flux.shape, 1, torch.device("cpu"), learned=tmp_path).model
    for learned, given in zip(again.parameters(), flux.parameters(), strict=True):
        assert torch.equal(learned, given), "a training may go on from it"
    with pytest.raises(SystemExit, match="was asked for"):
        train_flow.start(tmp_path / "other", replace(TINY, double_blocks=2), 1, torch.device("cpu"), learned=tmp_path)
    tokens, pooled = flux.text(*flux.text.ids([prompt]))
    theirs, their_pooled, _ = pipeline.encode_prompt(prompt, None, max_sequence_length=T5_TOKENS)
    torch.testing.assert_close(theirs, tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(their_pooled, pooled, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="the check of faces needs OpenCV")
def test_figures_count_lost_faces_and_compare_only_strangers():
    from tools.miniature.check_flow import figures
    from tools.miniature.faces import Face

    def face(score: float, *embedding: float) -> Face:
        return Face(score, Box(0, 0, 1, 1), np.array(embedding))

    faces = [face(0.95, 1.0, 0.0), face(0.7, 0.6, 0.8), None, face(0.99, 1.0, 0.0)]
    people = np.array([0, 1, 2, 0])  # the first and the last are one person
    assert figures(faces, people) == {"found_at_0.9": 0.5, "strangers": 0.6}
    assert figures([None, face(1.0, 1.0, 0.0)], np.array([0, 1]))["strangers"] is None


def test_latents_as_bytes_are_off_by_half_a_step_at_most_and_come_back_from_their_folder(tmp_path):
    exact = torch.randn(1, 3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    kept = Latents(to_bytes(exact), latents().attributes[:3], latents().faces[:3])
    assert (from_bytes(kept.values) - exact).abs().max() <= STEP / 2
    write_latents(kept, tmp_path / "whole.npz", "one")
    write_latents(kept, tmp_path / "crops-32x32.npz", "one")
    whole, crops = read_latents(tmp_path, "one")
    for read in (whole, *crops):
        assert torch.equal(read.values, kept.values)
        assert read.attributes == kept.attributes
        assert torch.equal(read.faces, kept.faces)
    assert len(crops) == 1
    write_latents(kept, tmp_path / "crops-32x32.npz", "another")
    with pytest.raises(SystemExit, match=r"crops-32x32\.npz was made by another encoder"):
        read_latents(tmp_path, "one")
    with np.load(tmp_path / "whole.npz") as stored:
        older = {name: values for name, values in stored.items() if name != "faces"}
    np.savez(tmp_path / "whole.npz", **older)
    with pytest.raises(SystemExit, match=r"where the faces are.*tools\.miniature\.encode"):
        read_latents(tmp_path, "one")
    with pytest.raises(SystemExit, match=r"tools\.miniature\.encode"):
        read_latents(tmp_path / "empty", "one")


def test_a_face_counts_more_and_a_photo_as_much_as_any_other():
    none, low, beyond = [0.0, 0, 0, 0], [1.0, 2, 3, 4], [-2.0, -1, 9, 2]
    weights = face_weights(torch.tensor([none, low, beyond]), 4, 6)
    assert weights.shape == (3, 1, 4, 6)
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(3))
    assert (weights[0] == 1).all()
    assert (weights[1, 0] > 1).nonzero().tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert (weights[2, 0] > 1).nonzero().tolist() == [[row, column] for row in (0, 1) for column in range(6)]
    assert weights[1].max() / weights[1].min() == pytest.approx(FACE)

"""Laws of stage 1 across photos, on the toy network."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from across_toy import CONFIG, SIZES, ToyPeople, toy_face, toy_run, trained
from toy import TOY_SITES, ToyDenoiser

from metalora.config import UserError
from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs.meta_train.people import shortened
from metalora.method.across_photos import (
    FLOOR,
    WARM_UP,
    GeneratedAdapter,
    Pairs,
    across_photos,
    rate_at,
    unseen_likeness,
)
from metalora.method.adapter import Adapter
from metalora.method.flow import generator_of
from metalora.method.shared_directions import ROW_LENGTH

LEARNS = replace(CONFIG, steps=400, batch=16, learning_rate=1e-2, generator_rate=3e-3)


def test_a_is_another_photo_of_b_and_every_photo_is_b_once_a_pass():
    pairs = Pairs([SIZES] * 8, batch=8, seed=0)  # 32 photos of one size and 16 of another: they fill their batches
    passes = [[pairs.batch(step) for step in range(turn * 6, turn * 6 + 6)] for turn in range(3)]
    for batches in passes:
        drawn = [pair for batch in batches for pair in batch]
        assert all(pair.reference != pair.target for pair in drawn)
        assert {(pair.person, pair.target) for pair in drawn} == {
            (who, photo) for who in range(8) for photo in range(6)
        }
        assert len(drawn) == 48
    assert passes[0] != passes[1]
    references = Counter(pair.reference for batches in passes for batch in batches for pair in batch)
    assert references.keys() == set(range(6)), "any other photo, whatever its size"


def test_where_photos_do_not_fill_their_batches_each_is_b_as_often_as_the_others_of_its_size():
    sizes = [SIZES[: 2 + person] for person in range(5)]  # of one size 2 + 3 + 4 + 4 + 4, of the other 1 + 2
    pairs = Pairs(sizes, batch=4, seed=0)
    passes = len(pairs.of_a_pass)
    counts = Counter(
        (sizes[pair.person][pair.target], pair.person, pair.target)
        for step in range(7 * passes)
        for pair in pairs.batch(step)
    )
    assert len(counts) == 20
    for size in set(SIZES):
        of_size = [count for (one, _, _), count in counts.items() if one == size]
        assert max(of_size) - min(of_size) <= 1


def test_a_batch_has_one_size_and_depends_on_seed_and_step_alone():
    sizes = [SIZES] * 5
    batches = [Pairs(sizes, 4, seed=3).batch(step) for step in range(20)]
    one = Pairs(sizes, 4, seed=3)
    assert [one.batch(step) for step in reversed(range(20))] == batches[::-1], "in whatever order they are asked for"
    assert [Pairs(sizes, 4, seed=4).batch(step) for step in range(20)] != batches
    assert all(len({sizes[pair.person][pair.target] for pair in batch}) == 1 for batch in batches)
    assert all([pair.slot for pair in batch] == [0, 1, 2, 3] for batch in batches)


def grown_run(**people):
    """A run whose shared up is not zero any more."""
    run = toy_run(people=ToyPeople(**people))
    for name, adapter in run.training.by_name.items():
        adapter.up.data.copy_(torch.randn(adapter.up.shape, generator=generator_of("up", name)))
    return run


def test_heads_of_a_batch_are_those_of_each_person_alone(denoiser: ToyDenoiser):
    denoiser.network.double()
    run = grown_run(dtype=torch.float64)
    training, batch = run.training, run.people.pair_batch(run.people.train, 0, run.pairs.batch(0))
    t = torch.linspace(0.1, 0.9, 4, dtype=torch.float64)
    with run.adapters.attached(denoiser.network), torch.no_grad():
        gains = training.generator(batch.faces)
        training.set_heads(batch.faces, 4)
        together = denoiser(batch.latents, t, batch.prompt)
        for sample in range(4):
            own = slice(sample, sample + 1)
            torch.testing.assert_close(training.generator(batch.faces[own]), gains[own])
            training.set_heads(batch.faces[own], 1)
            torch.testing.assert_close(denoiser(batch.latents[own], t[own], batch.prompt[own]), together[own])
        training.set_heads(batch.faces.roll(1, 0), 4)
        assert not torch.allclose(denoiser(batch.latents, t, batch.prompt), together), "another's heads do otherwise"
    assert len({tuple(row.flatten().tolist()) for row in gains}) == 4


@pytest.mark.parametrize("shape", [(3, 5, 8), (3, 8)], ids=["tokens", "a vector"])
def test_a_generated_adapter_is_an_adapter_whose_mid_is_the_gains_diagonal(shape: tuple[int, ...]):
    down, up, gains, x = torch.randn(4, 8), torch.randn(6, 4), torch.randn(3, 4), torch.randn(*shape)
    generated = GeneratedAdapter(down, None, up)
    generated.gains = gains
    as_mid = Adapter(down, torch.diag_embed(gains), up.expand(3, -1, -1))
    torch.testing.assert_close(generated(x), as_mid(x[:, None] if x.ndim == 2 else x).view(*shape[:-1], 6))


def test_a_new_run_changes_nothing_whatever_the_gains_and_heads_of_nothing_never_do(denoiser: ToyDenoiser):
    latents, t, prompt = torch.randn(4, 2, 2, 4), torch.rand(4), torch.ones(4, 8)
    base, faces = denoiser(latents, t, prompt), torch.randn(4, 3)
    for run, given in ((toy_run(), faces), (toy_run(), 100 * faces), (grown_run(), None)):
        with run.adapters.attached(denoiser.network):
            run.training.set_heads(given, 4)
            assert torch.equal(denoiser(latents, t, prompt), base)
    assert torch.equal(denoiser(latents, t, prompt), base)


def test_all_that_learns_moves_and_the_frozen_base_is_bit_identical(denoiser: ToyDenoiser):
    base = {name: value.clone() for name, value in denoiser.network.state_dict().items()}
    run = toy_run()
    before = [weight.clone() for weight in (*run.adapters.parameters(), *run.training.generator.parameters())]
    losses = trained(denoiser, run)
    after = [*run.adapters.parameters(), *run.training.generator.parameters()]
    assert len(losses) == CONFIG.steps
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(torch.equal(value, base[name]) for name, value in denoiser.network.state_dict().items())


def test_the_file_holds_what_was_trained_with_rows_as_long_as_a_fresh_meta_downs(denoiser: ToyDenoiser):
    run = toy_run()
    trained(denoiser, run)
    tensors = run.result()
    for name, adapter in run.training.by_name.items():
        down, mid = tensors[f"{name}.down"], tensors[f"{name}.mid"]
        torch.testing.assert_close(mid @ down, adapter.down.detach())
        torch.testing.assert_close(down @ down.T, torch.eye(CONFIG.meta_rank) / 3)
        assert torch.equal(tensors[f"{name}.up"], adapter.up)
    assert pytest.approx(3**-0.5) == ROW_LENGTH
    network = run.training.generator.state_dict()
    assert all(torch.equal(tensors[f"generator.{name}"], weight) for name, weight in network.items())
    assert len(tensors) == 3 * len(TOY_SITES) + len(network)


CAPTION = "a photo of a woman, short red hair, in a garden, smiling"


def test_a_shortened_caption_keeps_its_first_phrase_identity_phrases_leave_more_often_and_a_plain_one_stays():
    config = MetaTrainConfig()
    forms = [shortened(CAPTION, config, "ada", form) for form in range(2000)]
    assert forms == [shortened(CAPTION, config, "ada", form) for form in range(2000)]
    assert all(form.startswith("a photo of a woman") for form in forms)
    share = {phrase: sum(phrase not in form for form in forms) / 2000 for phrase in CAPTION.split(", ")}
    assert share["short red hair"] == pytest.approx(config.identity_dropout, abs=0.04)
    assert share["in a garden"] == pytest.approx(config.phrase_dropout, abs=0.04)
    assert share["smiling"] == pytest.approx(config.phrase_dropout, abs=0.04)
    assert len(set(forms)) == 8
    whole = replace(config, phrase_dropout=0.0, identity_words="")
    assert {shortened(CAPTION, whole, form) for form in range(50)} == {CAPTION}
    config = MetaTrainConfig(phrase_dropout=1.0, identity_dropout=1.0)
    for caption in ("a photo of a woman", "hair", ""):
        assert shortened(caption, config, 0) == caption


def test_rates_rise_stay_and_fall_to_the_floor():
    rates = [rate_at(step, 1000) for step in range(1000)]
    assert rates[:WARM_UP] == [(step + 1) / WARM_UP for step in range(WARM_UP)]
    assert set(rates[WARM_UP:601]) == {1.0}
    assert rates[601:] == sorted(rates[601:], reverse=True)
    assert rates[800] == pytest.approx(0.5)
    assert rates[-1] == FLOOR


def test_a_step_uses_the_rates_of_matrices_and_generator_and_no_gradient_longer_than_one(denoiser: ToyDenoiser):
    run = toy_run()
    run.training.gradients[:-1] = 100.0
    run.training.step(49, run.training.gradients[:-1].norm())
    rates = [group["lr"] for group in run.training.optimizer.param_groups]
    assert rates == pytest.approx([CONFIG.learning_rate * rate_at(49, 24), CONFIG.generator_rate * rate_at(49, 24)])
    moments = run.training.optimizer.state_dict()["state"]
    length = math.sqrt(sum(state["exp_avg"].square().sum().item() for state in moments.values()))
    assert length == pytest.approx(0.1, rel=1e-3)  # (1 - beta) of a gradient of length 1
    assert not run.training.gradients.any()


def test_a_nan_loss_stops_and_says_so(denoiser: ToyDenoiser):
    run = toy_run()
    batch = run.people.pair_batch(run.people.train, 0, run.pairs.batch(0))
    before = run.training.flat.clone()
    spoiled = replace(batch, latents=batch.latents * float("nan"))
    with (
        run.adapters.attached(denoiser.network),
        pytest.raises(UserError, match="loss became nan, its gradient nan, at step 1"),
    ):
        list(across_photos(denoiser, run.training, [spoiled]))
    assert torch.equal(run.training.flat, before)


def test_unseen_people_are_compared_with_somebody_else():
    run = toy_run(people=ToyPeople(held_out=2))
    assert run.unseen
    names = [person.name for person in run.people.held_out]
    assert len(run.unseen) >= 2
    for batch in run.unseen:
        for own, other in zip(batch.faces, batch.others, strict=True):
            (who,) = [name for name in names if any(torch.equal(own, toy_face(name, photo)) for photo in range(6))]
            (else_,) = [name for name in names if any(torch.equal(other, toy_face(name, photo)) for photo in range(6))]
            assert who != else_


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_what_faces_of_unseen_people_say_of_their_other_photos(denoiser: ToyDenoiser, seed: int):
    run = toy_run(replace(LEARNS, seed=seed), ToyPeople(train=60, held_out=16))
    with run.adapters.attached(denoiser.network):
        before = unseen_likeness(denoiser, run.training, run.unseen)
    assert before.own == before.another == before.none
    trained(denoiser, run)
    with run.adapters.attached(denoiser.network):
        after = unseen_likeness(denoiser, run.training, run.unseen)
    assert after.none == before.none
    assert after.own < 0.95 * after.another, after
    assert after.own < 0.9 * after.none, after

"""Laws of stage 1 (paper, Algorithm 1), on the toy network; and of who is trained together, in numbers only."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from stage_one import CONFIG, latents_of, toy_batches, toy_run, toy_training
from toy import ToyDenoiser, ToyNetwork

from metalora.config import UserError
from metalora.config_meta_train import MetaTrainConfig, meta_train_config
from metalora.method.buckets import Draws, Person, deal, place
from metalora.method.flow import flow_loss, generator_of
from metalora.method.meta_train import Batch, Heads, HeldOut, adaptability, generators, meta_train


def test_meta_down_is_bit_identical_after_warm_up_only_and_the_base_always(denoiser: ToyDenoiser):
    base = {name: value.clone() for name, value in denoiser.network.state_dict().items()}
    training, losses = toy_run(denoiser, replace(CONFIG, steps=5))
    assert torch.equal(training.down.flat, toy_training().down.flat)
    assert not training.down.optimizer.state_dict()["state"]
    assert training.heads.steps.any()
    assert len(losses) == 5
    longer, _ = toy_run(denoiser, replace(CONFIG, steps=6))
    assert not torch.equal(longer.down.flat, toy_training().down.flat)
    assert all(torch.equal(value, base[name]) for name, value in denoiser.network.state_dict().items())


def test_whoever_is_absent_from_a_batch_does_not_move_nor_do_their_rows_of_the_optimizer(denoiser: ToyDenoiser):
    training = toy_training()
    with training.adapters.attached(denoiser.network):
        absences = 0
        batches = list(toy_batches(training, CONFIG))[:12]
        steps = meta_train(denoiser, training, iter(batches), CONFIG)
        next(steps)
        for batch, _ in zip(batches[1:], iter(lambda: None, 0), strict=False):
            heads = training.heads
            before = [t.clone() for t in (heads.weights, heads.mean, heads.square, heads.steps)]
            next(steps)
            present = set(training.rows(batch.samples).tolist())
            for row in range(len(heads.names)):
                same = [
                    torch.equal(a[row], b[row])
                    for a, b in zip(before, (heads.weights, heads.mean, heads.square, heads.steps), strict=True)
                ]
                assert all(same) if row not in present else not any(same)
                absences += row not in present
    assert absences >= 11


def test_a_row_moves_as_torchs_adamw_moves_it(toy: ToyNetwork):
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(3, 12, generator=generator), torch.randn(8, 3, 12, generator=generator)
    expected = torch.nn.Parameter(start[1].clone())
    optimizer = torch.optim.AdamW([expected], lr=1e-2, weight_decay=0.1)
    parameter = torch.nn.Parameter(torch.zeros(1, 3, 4))
    heads = Heads([parameter], ["a", "b", "c"], list(start))
    for gradient in gradients:
        heads.load(torch.tensor([1]))
        parameter.grad = gradient[1].view(1, 3, 4)
        heads.step(1e-2, 0.1)
        expected.grad = gradient[1]
        optimizer.step()
    torch.testing.assert_close(heads.weights[1], expected.data)
    assert torch.equal(heads.weights[[0, 2]], start[[0, 2]])


def gradients_of(denoiser: ToyDenoiser, batch: Batch, divide: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The Meta-Down's gradient and each person's, of a batch as stage 1 computes them, in float64."""
    config = replace(CONFIG, batch=divide, learning_rate=0.0)
    training = toy_training(config, dtype=torch.float64)
    training.begin(0)
    noise = generator_of("some heads")
    training.heads.weights += torch.randn(training.heads.weights.shape, generator=noise).double()
    taken: dict[str, torch.Tensor] = {}
    training.down.step = lambda rate: taken.update(down=training.down.flat.grad.clone())
    with training.adapters.attached(denoiser.network):
        next(meta_train(denoiser, training, iter([batch]), config))
    for sample, gradient in zip(batch.samples, training.heads.gradient, strict=True):
        name = training.bucket(0)[sample.position].name
        taken[name] = taken.get(name, 0) + gradient
    return taken.pop("down"), taken


def test_a_mixed_batchs_gradients_are_the_sum_of_the_single_ones(toy: ToyNetwork):
    denoiser = ToyDenoiser(toy.double())
    batch = list(toy_batches(toy_training(dtype=torch.float64), CONFIG))[7]
    together, heads = gradients_of(denoiser, batch, 4)
    singles = [
        gradients_of(denoiser, Batch(7, [sample], batch.latents[i : i + 1], batch.prompt[i : i + 1]), 4)
        for i, sample in enumerate(batch.samples)
    ]
    assert together.abs().max() > 1e-4
    torch.testing.assert_close(together, sum(down for down, _ in singles), rtol=0, atol=1e-10)
    for name, gradient in heads.items():
        alone = sum(own[name] for _, own in singles if name in own)
        torch.testing.assert_close(gradient, alone, rtol=0, atol=1e-10)
    assert len(heads) == 4, "a batch mixes four people"
    assert len({torch.rand(1, generator=one).item() for one in generators(batch, CONFIG)}) == 4, (
        "with noise of their own"
    )


def test_fresh_heads_in_each_bucket_but_the_optimizer_of_meta_down_lives_on(denoiser: ToyDenoiser):
    training, _ = toy_run(denoiser)
    assert training.visit == 1
    assert training.down.optimizer.state_dict()["state"][0]["step"] == 2 * (12 - 5)
    assert {person.name for person in training.bucket(1)} == set(training.heads.names)
    assert training.heads.steps.sum() == 12 * 4, "this bucket's steps alone"


def test_the_meta_down_serves_people_it_has_not_seen(denoiser: ToyDenoiser):
    """The control: after equal steps of heads on someone new, a trained Meta-Down has the lower loss."""
    config = replace(CONFIG, steps=600, bucket_steps=300, warmup_steps=120, learning_rate=3e-3, rank=1, meta_rank=2)
    trained, _ = toy_run(denoiser, config)
    finals = {}
    for name, training in (("trained", trained), ("random", toy_training(config))):
        training.down.train(False)
        training.heads = training.new_heads(["stranger"], "heads")
        with training.adapters.attached(denoiser.network):
            losses = []
            for step in range(60):
                training.heads.load(torch.zeros(8, dtype=torch.long))
                photos = torch.stack([latents_of("stranger", photo) for photo in range(8)])
                loss = flow_loss(denoiser, photos, torch.ones(8, 8), generator_of("adapting", step))
                loss.backward()
                training.heads.step(3e-3, 0.0)
                losses.append(loss.item())
        finals[name] = sum(losses[-30:])
    assert finals["trained"] < 0.98 * finals["random"], finals


def test_a_nan_loss_stops_and_says_so(denoiser: ToyDenoiser):
    training = toy_training()
    spoiled = (replace(b, latents=b.latents * float("nan")) for b in toy_batches(training, CONFIG))
    with training.adapters.attached(denoiser.network), pytest.raises(UserError, match="loss became nan at step 1"):
        list(meta_train(denoiser, training, spoiled, CONFIG))


def test_a_look_at_held_out_people_leaves_everything_as_it_was_also_when_it_is_stopped(denoiser: ToyDenoiser):
    training, _ = toy_run(denoiser, replace(CONFIG, steps=8))
    photos = torch.stack([latents_of("someone new", photo) for photo in range(3)])
    prompt = torch.ones(1, 8)
    person = HeldOut("someone new", photos[:1], prompt, None, [(photo[None], prompt, None) for photo in photos[1:]])

    def state() -> list[torch.Tensor]:
        worn = [parameter.detach().clone() for parameter in training.heads.parameters]
        heads = training.heads
        return [*worn, heads.weights.clone(), heads.steps.clone(), training.down.flat.detach().clone()]

    class Stopping(ToyDenoiser):
        def __call__(self, *given):
            if next(left) == 0:
                raise KeyboardInterrupt
            return super().__call__(*given)

    training.heads.load(training.heads.rows)  # as the last step left them
    before, left = state(), iter(range(2, -1, -1))
    with training.adapters.attached(denoiser.network):
        adaptability(denoiser, training, [person])
        with pytest.raises(KeyboardInterrupt):
            adaptability(Stopping(denoiser.network), training, [person])
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))


SQUARE, WIDE = (16, 16), (24, 10)
PAPER = meta_train_config("paper", {})


def people(count: int, photos: int = 20, kind: str = "woman") -> list[Person]:
    return [Person(f"{kind} {n}", kind, (SQUARE,) * photos) for n in range(count)]


def test_the_papers_numbers():
    assert (PAPER.steps, PAPER.bucket_steps, PAPER.warmup_steps) == (50_000, 2500, 1000)
    assert (PAPER.batch, PAPER.bucket_people) == (4, 50)
    buckets = deal(people(1050), PAPER)
    assert [len(bucket) for bucket in buckets] == [50] * 21
    assert len({person.name for bucket in buckets for person in bucket}) == 1050
    draws = Draws(buckets[0], 0, PAPER)
    uses = Counter((s.position, s.photo) for index in range(2500) for s in draws.batch(index))
    assert len(uses) == 1000
    assert set(uses.values()) <= {9, 10, 11}, "10 uses of each photo"


def test_steps_go_round_the_buckets():
    config = MetaTrainConfig(objective="paper", steps=30, bucket_steps=10, warmup_steps=4)
    places = [place(step, config) for step in range(30)]
    assert [p.visit for p in places] == [0] * 10 + [1] * 10 + [2] * 10
    assert [p.warm_up for p in places] == ([True] * 4 + [False] * 6) * 3


def test_a_batch_shows_different_people_one_a_lane_in_one_aspect_ratio():
    mixed = [Person(f"{n}", "cat", (SQUARE,) * 5 + (WIDE,) * (n % 4)) for n in range(13)]
    draws = Draws(mixed, 0, PAPER)
    for index in range(200):
        batch = draws.batch(index)
        assert [s.slot for s in batch] == [0, 1, 2, 3]
        assert len({mixed[s.position].sizes[s.photo] for s in batch}) == 1
        assert len({s.position for s in batch}) == 4 or mixed[batch[0].position].sizes[batch[0].photo] == WIDE
    seen = {(s.position, s.photo) for index in range(200) for s in draws.batch(index)}
    assert len(seen) == sum(len(person.sizes) for person in mixed)


def test_every_batch_is_full_and_another_visit_and_another_seed_draw_otherwise():
    draws = Draws(people(2), 0, replace(PAPER, batch=5))
    assert all(len(draws.batch(index)) == 5 for index in range(20))
    assert {s.position for s in draws.batch(0)} == {0, 1}

    def drawn(visit: int, seed: int):
        draws = Draws(people(8), visit, replace(PAPER, seed=seed))
        return [draws.batch(index) for index in range(5)]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(1, 0)
    assert drawn(0, 0) != drawn(0, 1)


def test_buckets_are_even_and_mix_the_classes():
    buckets = deal(people(45) + people(45, kind="man"), PAPER)
    assert [len(bucket) for bucket in buckets] == [45, 45]
    assert all(20 <= sum(person.kind == "man" for person in bucket) <= 25 for bucket in buckets)


def test_bad_settings_are_named():
    with pytest.raises(UserError, match="warmup_steps 10 must be less than bucket_steps 10"):
        MetaTrainConfig(bucket_steps=10, warmup_steps=10)
    with pytest.raises(UserError, match="cannot be filled in"):
        MetaTrainConfig(caption="a photo of {nobody}")
    with pytest.raises(UserError, match="larger than meta_rank"):
        MetaTrainConfig(rank=17)

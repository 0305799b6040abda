"""Laws of stage 2, and of its weights' moving average, on the toy network."""

from dataclasses import replace

import pytest
import torch
from toy import TOY_SITES, ToyDenoiser

from metalora.config import PersonalizeConfig, UserError
from metalora.method.adapter import IDENTITY, SHARED, Adapters, new_adapters, random_meta_down
from metalora.method.flow import generator_of
from metalora.method.personalize import (
    Person,
    TrainingImages,
    averaged,
    learning_rate_at,
    new_optimizer,
    personalize,
    settle,
    validation_loss,
    weights_of,
)

# 5 crops of one person, 2 views each: much in common, a little of their own
LATENTS = 2 + 0.1 * torch.randn(5, 2, 2, 2, 4, generator=torch.Generator().manual_seed(9))
IMAGES = TrainingImages(list(LATENTS), torch.ones(1, 8))
CONFIG = PersonalizeConfig(steps=40, learning_rate=3e-2, rank=2)
SHORT = replace(CONFIG, steps=12)


def fresh(config: PersonalizeConfig) -> Adapters:
    generator = generator_of(config.seed, "heads")
    meta_down = random_meta_down(TOY_SITES, 16, generator) if config.method == "meta-lora" else None
    return new_adapters(TOY_SITES, config.rank, generator, meta_down=meta_down)


def followed(
    denoiser: ToyDenoiser, config: PersonalizeConfig
) -> tuple[Adapters, torch.optim.Optimizer, list[torch.Tensor]]:
    """Adapters after training, their optimizer, and what it moves as it was after every step."""
    adapters = fresh(config)
    optimizer = new_optimizer(adapters, config)
    (flat,) = weights_of(optimizer)
    with adapters.attached(denoiser.network):
        path = [flat.detach().clone() for _ in personalize(denoiser, adapters, optimizer, [Person(IMAGES, 0)], config)]
    return adapters, optimizer, path


def trained(
    denoiser: ToyDenoiser, config: PersonalizeConfig, prior: TrainingImages | None = None
) -> tuple[Adapters, list[float]]:
    adapters, person = fresh(config), Person(IMAGES, config.seed, prior)
    with adapters.attached(denoiser.network):
        losses = [
            step.loss for step in personalize(denoiser, adapters, new_optimizer(adapters, config), [person], config)
        ]
    return adapters, losses


def test_stage_2_trains_heads_alone_or_a_plain_loras_own_down_and_leaves_the_rest_bit_identical(denoiser: ToyDenoiser):
    base = {name: value.clone() for name, value in denoiser.network.state_dict().items()}
    born, (adapters, _) = fresh(CONFIG), trained(denoiser, CONFIG)
    for before, after in zip(born.parameters(SHARED), adapters.parameters(SHARED), strict=True):
        assert torch.equal(before, after)
    assert all(
        not torch.equal(a, b) for a, b in zip(born.parameters(IDENTITY), adapters.parameters(IDENTITY), strict=True)
    )
    assert all(torch.equal(value, base[name]) for name, value in denoiser.network.state_dict().items())
    config = replace(CONFIG, method="lora")
    born, (adapters, _) = fresh(config), trained(denoiser, config)
    assert all(not torch.equal(a, b) for a, b in zip(born.parameters(), adapters.parameters(), strict=True))


def test_375_steps_see_each_of_25_crops_15_times_in_batches_of_one_size_and_views_by_the_toss_of_a_coin():
    images = TrainingImages([torch.full((1, 1, 2, 2), float(crop)) for crop in range(25)], None)
    seen = [crop for step in range(375) for crop, _ in images.draw(step, 1, ("key",))]
    assert all(sorted(seen[start : start + 25]) == list(range(25)) for start in range(0, 375, 25))
    assert seen[:25] != seen[25:50]
    sizes = [(2, 4), (4, 2), (2, 2)]
    images = TrainingImages([torch.zeros(2, 1, *sizes[crop % 3]) for crop in range(9)], None)
    batches = [images.draw(step, 4, ("key",)) for step in range(60)]
    assert [len({crop % 3 for crop, _ in batch}) for batch in batches] == [1] * 60
    assert {crop % 3 for batch in batches for crop, _ in batch} == {0, 1, 2}
    mirrored = sum(view for batch in batches for _, view in batch) / (60 * 4)
    assert 0.35 < mirrored < 0.65


def test_a_nan_loss_stops_and_says_so(denoiser: ToyDenoiser):
    with pytest.raises(UserError, match=r"loss became (nan|inf) at step \d+.*Lower the learning rate"):
        train_on_nan(denoiser)


def train_on_nan(denoiser: ToyDenoiser) -> None:
    adapters = fresh(CONFIG)
    images = replace(IMAGES, prompt=torch.full((1, 8), float("nan")))
    with adapters.attached(denoiser.network):
        list(personalize(denoiser, adapters, new_optimizer(adapters, CONFIG), [Person(images, 0)], CONFIG))


def test_prior_preservation_holds_the_base_where_the_prior_images_are(denoiser: ToyDenoiser):
    prior = TrainingImages(
        [torch.randn(1, 2, 2, 4, generator=torch.Generator().manual_seed(i)) for i in range(8)], torch.ones(1, 8)
    )
    config = replace(CONFIG, steps=200)
    drift = {}
    for weight in (0.0, 5.0):
        adapters, _ = trained(denoiser, replace(config, prior_weight=weight), prior=prior if weight else None)
        with adapters.attached(denoiser.network):
            drift[weight] = validation_loss(denoiser, prior, torch.device("cpu"))
    assert drift[5.0] < drift[0.0]


def test_clipping_bounds_the_first_step(denoiser: ToyDenoiser):
    config = replace(CONFIG, steps=1, max_grad_norm=1e-12)
    adapters, _ = trained(denoiser, config)
    ups = torch.cat([weight.flatten() for weight in adapters.parameters(("up",))])
    assert ups.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_the_learning_rate_is_that_of_diffusers(name: str, warmup: int):
    from diffusers.optimization import get_scheduler

    config = replace(CONFIG, lr_scheduler=name, lr_warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    library = name if name != "constant" or not warmup else "constant_with_warmup"
    scheduler = get_scheduler(library, optimizer, num_warmup_steps=warmup, num_training_steps=config.steps)
    for step in range(config.steps):
        assert learning_rate_at(step, config) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        scheduler.step()


def test_a_falling_rate_moves_the_last_step_less(denoiser: ToyDenoiser):
    config = replace(CONFIG, steps=10)
    moved = {}
    for name in ("constant", "linear"):
        own, adapters = replace(config, lr_scheduler=name), fresh(config)
        with adapters.attached(denoiser.network):
            steps = personalize(denoiser, adapters, new_optimizer(adapters, own), [Person(IMAGES, 0)], own)
            before, after = [adapters.tensors() for _ in steps][-2:]
        moved[name] = sum((after[key] - before[key]).norm() for key in before)
    assert moved["linear"] < 0.3 * moved["constant"]


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UserError, match=r"--learning-rate, 0.0004: set it to 1"):
        replace(CONFIG, optimizer="prodigy", learning_rate=4e-4)
    with pytest.raises(UserError, match=r"lr-warmup-steps is 40, but --steps is 40"):
        replace(CONFIG, lr_warmup_steps=40)


def test_the_average_does_not_change_the_training_and_of_one_step_or_none_is_the_last_weights(denoiser: ToyDenoiser):
    (_, _, alone), (_, _, beside) = followed(denoiser, SHORT), followed(denoiser, replace(SHORT, ema_steps=5))
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))
    for window in (0, 1):
        _, optimizer, path = followed(denoiser, replace(SHORT, ema_steps=window))
        settle(optimizer)
        assert torch.equal(weights_of(optimizer)[0].detach(), path[-1])


def test_it_is_the_mean_of_all_steps_until_the_window_is_full_and_then_forgets_exponentially(denoiser: ToyDenoiser):
    _, optimizer, path = followed(denoiser, replace(SHORT, ema_steps=100))
    settle(optimizer)
    torch.testing.assert_close(weights_of(optimizer)[0].detach().double(), torch.stack(path).double().mean(dim=0))
    window = 4
    _, optimizer, path = followed(denoiser, replace(SHORT, ema_steps=window))
    expected = torch.stack(path[:window]).double().mean(dim=0)
    for weights in path[window:]:
        expected += (weights.double() - expected) / window
    with averaged(optimizer):
        torch.testing.assert_close(weights_of(optimizer)[0].detach().double(), expected)


def test_the_adapters_hold_the_average_while_inside_and_their_own_bits_afterwards(denoiser: ToyDenoiser):
    adapters, optimizer, path = followed(denoiser, replace(SHORT, ema_steps=6))
    before = adapters.tensors()
    with averaged(optimizer):
        inside = adapters.tensors()
    with pytest.raises(RuntimeError, match="in the middle"), averaged(optimizer):
        raise RuntimeError("in the middle")
    changed = {name.rpartition(".")[2] for name in before if not torch.equal(inside[name], before[name])}
    assert changed == {"mid", "up"}, "the Meta-Down does not move, so neither does its average"
    assert all(torch.equal(value, before[name]) for name, value in adapters.tensors().items())
    assert torch.equal(weights_of(optimizer)[0].detach(), path[-1])

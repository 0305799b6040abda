"""Laws of the weights' moving average, on the toy network."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy import TOY_SITES, ToyDenoiser

from metalora.config import PersonalizeConfig
from metalora.method.adapter import Adapters, new_adapters, random_meta_down
from metalora.method.flat import averaged, settle, weights_of
from metalora.method.flow import generator_of
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize

LATENTS = 2 + 0.1 * torch.randn(5, 2, 2, 2, 4, generator=torch.Generator().manual_seed(9))
PERSON = Person(TrainingImages(list(LATENTS), torch.ones(1, 8)), seed=0)
CONFIG = PersonalizeConfig(steps=12, learning_rate=3e-2, rank=2)


def trained(denoiser: ToyDenoiser, config: PersonalizeConfig) -> tuple[Adapters, torch.optim.Optimizer, list[Tensor]]:
    """Adapters after training, their optimizer, and what it moves as it was after every step."""
    generator = generator_of("heads")
    adapters = new_adapters(
        TOY_SITES, config.rank, generator, meta_down=random_meta_down(TOY_SITES, 16, generator), scale=config.scale
    )
    optimizer = new_optimizer(adapters, config)
    (flat,) = weights_of(optimizer)
    with adapters.attached(denoiser.network):
        path = [flat.detach().clone() for _ in personalize(denoiser, adapters, optimizer, [PERSON], config)]
    return adapters, optimizer, path


def test_the_average_does_not_change_the_training(denoiser: ToyDenoiser):
    (_, _, alone), (_, _, beside) = trained(denoiser, CONFIG), trained(denoiser, replace(CONFIG, ema_steps=5))
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_until_the_window_is_full_it_is_the_mean_of_all_steps(denoiser: ToyDenoiser):
    _, optimizer, path = trained(denoiser, replace(CONFIG, ema_steps=100))
    settle(optimizer)
    torch.testing.assert_close(weights_of(optimizer)[0].detach().double(), torch.stack(path).double().mean(dim=0))


def test_afterwards_old_steps_are_forgotten_exponentially(denoiser: ToyDenoiser):
    window = 4
    _, optimizer, path = trained(denoiser, replace(CONFIG, ema_steps=window))
    expected = torch.stack(path[:window]).double().mean(dim=0)
    for weights in path[window:]:
        expected += (weights.double() - expected) / window
    with averaged(optimizer):
        torch.testing.assert_close(weights_of(optimizer)[0].detach().double(), expected)


def test_the_adapters_hold_the_average_while_inside_and_their_own_bits_afterwards(denoiser: ToyDenoiser):
    adapters, optimizer, path = trained(denoiser, replace(CONFIG, ema_steps=6))
    before = adapters.tensors()
    with averaged(optimizer):
        inside = adapters.tensors()
    with pytest.raises(RuntimeError, match="in the middle"), averaged(optimizer):
        raise RuntimeError("in the middle")
    changed = {name.rpartition(".")[2] for name in before if not torch.equal(inside[name], before[name])}
    assert changed == {"mid", "up"}, "the Meta-Down does not move, so neither does its average"
    assert all(torch.equal(value, before[name]) for name, value in adapters.tensors().items())
    assert torch.equal(weights_of(optimizer)[0].detach(), path[-1])


def test_a_window_of_one_step_and_none_at_all_are_the_last_weights(denoiser: ToyDenoiser):
    for window in (0, 1):
        _, optimizer, path = trained(denoiser, replace(CONFIG, ema_steps=window))
        settle(optimizer)
        assert torch.equal(weights_of(optimizer)[0].detach(), path[-1])

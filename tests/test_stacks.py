"""Several people at once become what each becomes alone."""

from dataclasses import replace

import pytest
import torch
from toy import TOY_SITES, ToyDenoiser

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.protocol import Prompt
from metalora.config import PersonalizeConfig
from metalora.method.adapter import Adapters, fold_all, new_adapters, random_meta_down
from metalora.method.flow import generator_of
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize
from metalora.method.stacks import stacked, taken_out

CONFIG = PersonalizeConfig(steps=60, learning_rate=3e-3, rank=2)
PROMPT = torch.ones(1, 8, dtype=torch.float64)
# What one site adds to a layer, alone and in a stack, may differ by this much in relation to its own size: rounding
# in another order, through 30 steps of Adam in float32.
TOLERANCE = 2e-4


def fresh(config: PersonalizeConfig, sites: list, seed: int) -> Adapters:
    downs = random_meta_down(sites, 16, generator_of("everyone's")) if config.method == "meta-lora" else None
    return new_adapters(sites, config.rank, generator_of(seed, "heads"), meta_down=downs)


def toy_people() -> list[Person]:
    """Three people with their own crops, in two sizes that the network takes alike, and their own seeds."""
    people = []
    for seed in (3, 4, 5):
        generator = generator_of("photos", seed)
        crops = [
            torch.randn(2, *((2, 2, 4) if crop % 2 else (2, 4, 2)), generator=generator, dtype=torch.float64)
            for crop in range(3 + seed % 3)
        ]
        people.append(Person(TrainingImages(crops, PROMPT), seed))
    return people


def trained(denoiser, adapters: Adapters, people: list[Person], config: PersonalizeConfig) -> list[float]:
    with adapters.attached(denoiser.network):
        return [step.loss for step in personalize(denoiser, adapters, new_optimizer(adapters, config), people, config)]


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("method", ["meta-lora", "lora"])
def test_together_is_alone_in_double_precision(denoiser: ToyDenoiser, method: str, rank: int, batch: int, clip: float):
    denoiser.network.double()
    config, people = replace(CONFIG, method=method, rank=rank, batch=batch, max_grad_norm=clip), toy_people()
    stack = stacked([fresh(config, TOY_SITES, person.seed) for person in people])
    losses = trained(denoiser, stack, people, config)
    alone = []
    for row, person in enumerate(people):
        adapters = fresh(config, TOY_SITES, person.seed)
        alone.append(trained(denoiser, adapters, [person], config))
        for name, weight in taken_out(stack, row).tensors().items():
            torch.testing.assert_close(weight, adapters.tensors()[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(alone).mean(dim=0), rtol=1e-5, atol=0)


def test_a_person_of_a_stack_is_the_person_that_went_in():
    people = [fresh(CONFIG, TOY_SITES, seed) for seed in range(3)]
    back = taken_out(stacked(people), 1).tensors()
    assert all(torch.equal(weight, back[name]) for name, weight in people[1].tensors().items())


def a_prompt(*key: object) -> Prompt:
    tokens = torch.randn(1, 8, 64, generator=generator_of("tokens", *key))
    return Prompt(tokens=tokens, pooled=torch.randn(1, 32, generator=generator_of("pooled", *key)))


@pytest.mark.parametrize("own_prompts", [False, True], ids=["one prompt", "a prompt each"])
@pytest.mark.parametrize("method", ["meta-lora", "lora"])
def test_together_is_alone_on_flux_within_the_tolerance(tiny: PipelineBackbone, method: str, own_prompts: bool):
    config = replace(CONFIG, method=method, steps=30, rank=1)
    sites = tiny.sites("all")
    prompt = a_prompt()
    people = [
        Person(
            TrainingImages(
                [torch.randn(2, 16, 8, 8 - crop % 2 * 4, generator=generator_of(s, crop)) for crop in range(4)],
                a_prompt(s) if own_prompts else prompt,
            ),
            s,
        )
        for s in (7, 8, 9)
    ]
    with tiny.denoiser() as denoiser:
        stack = stacked([fresh(config, sites, person.seed) for person in people])
        trained(denoiser, stack, people, config)
        apart = []
        for row, person in enumerate(people):
            adapters = fresh(config, sites, person.seed)
            trained(denoiser, adapters, [person], config)
            apart += [
                relative(one, other) for one, other in zip(lora(taken_out(stack, row)), lora(adapters), strict=True)
            ]
            assert relative(lora(adapters)[0], lora(fresh(config, sites, person.seed))[0]) > 0.5  # it has learned
    print(f"{method}: at most {max(apart):.1e} apart")
    assert max(apart) < TOLERANCE


def lora(adapters: Adapters) -> list[torch.Tensor]:
    return [up @ down for down, up in fold_all(adapters).values()]


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / one.norm()).item()

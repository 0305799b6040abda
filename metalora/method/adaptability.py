"""Is the Meta-Down getting better at being adapted? Stage 2 in short, on people who are not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .flow import Denoiser, Times, flow_loss, generator_of, loss_at
from .meta_train import MetaTraining

TIMES = 8  # at which each unseen photo is measured, evenly spread


@dataclass(frozen=True)
class HeldOut:
    """Someone who is not trained on: latents [views, c, h, w] of one photo, prompts, and what cells count, if not 1.

    Unseen are photos that are not adapted to, each (latents [1, c, h, w], prompt, what cells count [1, 1, h, w]).
    """

    name: str
    reference: Tensor
    prompt: Any
    weights: Tensor | None
    unseen: list[tuple[Tensor, Any, Tensor | None]]


def adaptability(denoiser: Denoiser, training: MetaTraining, people: Sequence[HeldOut]) -> tuple[float, float]:
    """Mean loss on the unseen photos, before and after fresh heads have had their few steps on the reference.

    Every process does its share of the people; heads, noise and times are the same each time this is called.
    """
    world, heads = training.world, training.heads
    training.down.train(False)
    sums = torch.zeros(3, dtype=torch.float64)
    try:
        for person in people[world.rank :: world.size]:
            training.heads = training.new_heads([person.name], "held out")
            sums += torch.tensor([*adapted(denoiser, training, person), 1.0], dtype=torch.float64)
    finally:  # also when it is stopped inside: a checkpoint is of the people who are trained on
        training.heads = heads
        heads.load(heads.rows)
    sums = sums.to(training.down.flat.device, torch.float32)
    world.add_up(sums)
    before, after, count = sums.tolist()
    return before / count, after / count


def adapted(denoiser: Denoiser, training: MetaTraining, person: HeldOut) -> tuple[float, float]:
    """The loss on someone's unseen photos before and after the few steps on the reference; `heads` are theirs."""
    config = training.config
    before = unseen_loss(denoiser, training, person)
    for step in range(config.validation_steps):
        training.heads.load(torch.zeros(len(person.reference), dtype=torch.long))
        generator = generator_of(config.seed, "held out", person.name, step)
        times = Times(config.time_sampling, config.time_shift)
        flow_loss(denoiser, person.reference, person.prompt, generator, times, person.weights).backward()
        training.heads.step(config.learning_rate, config.weight_decay)
    return before, unseen_loss(denoiser, training, person)


def unseen_loss(denoiser: Denoiser, training: MetaTraining, person: HeldOut) -> float:
    """The mean flow loss at fixed times and noise."""
    losses = []
    for photo, (latents, prompt, weights) in enumerate(person.unseen):
        training.heads.load(torch.zeros(1, dtype=torch.long))
        for index in range(TIMES):
            t, noise = torch.full((1,), (index + 0.5) / TIMES), generator_of("unseen", photo, index)
            losses.append(loss_at(denoiser, latents, prompt, t, noise, weights))
    return sum(losses) / len(losses)

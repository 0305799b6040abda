"""Stage 2 (paper, Algorithm 2): fit the heads to one photo, on a Meta-Down that does not move.

The baselines run in the same loop: a plain LoRA has no Meta-Down and trains its own down, with the crops or with the
whole photo; DreamBooth's prior preservation adds the loss on images that the base made of the class.

Several people may be fitted at once, with a stack of adapters. Each draws from their own seed what they would draw
alone, and nobody's loss reaches another's weights, so that each becomes what they would become alone, up to rounding.

What is trained lies in one buffer, so that an optimizer, its moving average, a sum over processes and a file see one
tensor.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..config import PersonalizeConfig, Step, UserError
from .adapter import IDENTITY, ROLES, SHARED, Adapters
from .flow import Denoiser, Times, flow_losses, generator_of, joined, loss_at, shuffled


@dataclass(frozen=True)
class TrainingImages:
    """What is learned from: each crop's latents [views, c, h, w], a view as it is and one mirrored; and a prompt.

    Weights [views, 1, h, w] of each crop, if there are some, say what each cell counts in the loss; own prompts, if
    there are some, stand in the place of the prompt, one for each crop.
    """

    latents: Sequence[Tensor]
    prompt: Any
    weights: Sequence[Tensor] = ()
    own_prompts: Sequence[Any] = ()

    def prompt_of(self, crop: int) -> Any:
        """What a crop shows."""
        return self.own_prompts[crop] if self.own_prompts else self.prompt

    def draw(self, step: int, batch: int, key: tuple[object, ...]) -> list[tuple[int, int]]:
        """A step's batch of (crop, view): shuffled passes over the crops, each mirrored by the toss of a coin.

        "for iter, for item" in Algorithm 2: 375 steps over 25 crops see each crop 15 times. A batch has one size, so
        one larger than 1 is filled up with other crops of the first one's size.
        """
        generator = generator_of(*key, "draw", step)
        first = shuffled(step, len(self.latents), *key, "pass")
        shape = self.latents[first].shape[1:]
        same_size = [crop for crop, views in enumerate(self.latents) if views.shape[1:] == shape]
        others = torch.randint(len(same_size), (batch - 1,), generator=generator)
        chosen = [first, *(same_size[int(other)] for other in others)]
        return [(crop, int(torch.randint(len(self.latents[crop]), (1,), generator=generator))) for crop in chosen]


@dataclass(frozen=True)
class Person:
    """Whom to fit: their images, the seed of all that is drawn for them, and images of the class to hold on to."""

    images: TrainingImages
    seed: int | str
    prior: TrainingImages | None = None


def personalize(
    denoiser: Denoiser,
    adapters: Adapters,
    optimizer: torch.optim.Optimizer,
    people: Sequence[Person],
    config: PersonalizeConfig,
    *,
    start: int = 0,
) -> Iterator[Step]:
    """Yield after every optimizer step, with the mean loss; the adapters are attached by the caller.

    Of several people, adapters are a stack in their order. `start` continues a stopped run.
    """
    weights = adapters.parameters(trained_roles(config))
    assert all((weight.shape[0] if weight.ndim == 3 else 1) == len(people) for weight in weights), len(people)
    device, times = weights[0].device, Times(config.time_sampling, config.time_shift)
    for step in range(start, config.steps):
        generators = [generator_of(person.seed, "noise", step) for person in people]
        batches = [Batch(p.images, step, config.batch, (p.seed, "crops"), device) for p in people]
        losses = backward(denoiser, adapters, batches, generators, times)
        if config.prior_weight:
            priors = [Batch(p.prior, step, config.batch, (p.seed, "prior"), device) for p in people if p.prior]
            assert len(priors) == len(people), "prior preservation needs images of everyone's class"
            backward(denoiser, adapters, priors, generators, times, config.prior_weight)
        if config.max_grad_norm:
            clip_each(weights, config.max_grad_norm)
        check_losses(losses, step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config)
        optimizer.step()
        if config.ema_steps:
            follow(optimizer, config.ema_steps)
        optimizer.zero_grad(set_to_none=False)  # the gradients are views of one buffer
        yield Step(step + 1, config.steps, sum(losses) / len(losses))


class Batch:
    """What one person learns from in one step: latents [b, c, h, w], what their cells count, a prompt for each."""

    def __init__(
        self, images: TrainingImages, step: int, size: int, key: tuple[object, ...], device: torch.device
    ) -> None:
        drawn = images.draw(step, size, key)
        self.latents = torch.stack([images.latents[crop][view] for crop, view in drawn]).to(device)
        self.weights = None
        if images.weights:
            self.weights = torch.stack([images.weights[crop][view] for crop, view in drawn]).to(device)
        self.prompts = [images.prompt_of(crop) for crop, _ in drawn]


def backward(
    denoiser: Denoiser,
    adapters: Adapters,
    batches: Sequence[Batch],
    generators: Sequence[torch.Generator],
    times: Times,
    weight: float = 1.0,
) -> list[float]:
    """Add everyone's gradient; everyone's loss. Batches of one size share a forward pass, each with its own prompt."""
    losses = [0.0] * len(batches)
    for rows in passes(batches):
        latents = [batches[row].latents for row in rows]
        indices = torch.tensor([row for row in rows for _ in batches[row].latents], device=latents[0].device)
        with adapters.using(indices):  # also in backward, which may compute the blocks again
            prompt = prompt_of([batches[row] for row in rows])
            weights = [batches[row].weights for row in rows]
            found = flow_losses(denoiser, latents, prompt, [generators[row] for row in rows], times, weights)
            (weight * torch.stack(found).sum()).backward()
        for row, loss in zip(rows, found, strict=True):
            losses[row] = loss.item()
    return losses


def passes(batches: Sequence[Batch]) -> list[list[int]]:
    """Whose batches can be put together, in a fixed order: rounding must not depend on anything else."""
    grouped: dict[tuple[object, ...], list[int]] = {}
    for row, batch in enumerate(batches):
        prompts = [
            tuple(part.shape[1:] for part in prompt.values()) if isinstance(prompt, dict) else id(prompt)
            for prompt in batch.prompts
        ]
        grouped.setdefault((*batch.latents.shape[1:], *prompts), []).append(row)
    return list(grouped.values())


def prompt_of(batches: Sequence[Batch]) -> Any:
    """One for all where it is the same; else one for each sample."""
    prompts = [prompt for batch in batches for prompt in batch.prompts]
    return prompts[0] if all(prompt is prompts[0] for prompt in prompts) else joined(prompts)


def clip_each(weights: Sequence[Tensor], limit: float) -> None:
    """Scale each person's gradient down to this norm, if it is longer."""
    gradients = [
        weight.grad if weight.ndim == 3 else weight.grad[None] for weight in weights if weight.grad is not None
    ]
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)  # [people]
    factors = (limit / (norms + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, 1, 1))


def check_losses(losses: Sequence[float], step: int) -> None:
    """Stop where training has broken down."""
    broken = [loss for loss in losses if not abs(loss) < float("inf")]
    if broken:
        raise UserError(
            f"The loss became {broken[0]} at step {step + 1}. What was saved before is kept. "
            "Lower the learning rate, or clip the gradient with max_grad_norm = 1."
        )


def trained_roles(config: PersonalizeConfig) -> tuple[str, ...]:
    """Meta-LoRA trains the heads alone; a plain LoRA has no heads on a shared matrix and trains all it has."""
    return IDENTITY if config.method == "meta-lora" else ROLES


FUSED_ADAMW: Callable[..., torch.optim.Optimizer] = partial(torch.optim.AdamW, fused=True)


def new_optimizer(
    adapters: Adapters, config: PersonalizeConfig, build: Callable[..., torch.optim.Optimizer] = FUSED_ADAMW
) -> torch.optim.Optimizer:
    """The optimizer of the weights that stage 2 trains, which become views of one buffer; the others are frozen here.

    A step then is one update of one tensor, and not of a hundred small ones. `build` makes it of parameters, `lr` and
    `weight_decay`.
    """
    roles = trained_roles(config)
    for weight in adapters.parameters(SHARED):
        weight.requires_grad_("down" in roles)
    flat, _ = in_one_buffer(adapters.parameters(roles))
    return build([flat], lr=config.learning_rate, weight_decay=config.weight_decay)


def learning_rate_at(step: int, config: PersonalizeConfig) -> float:
    """Of a step, counted from 0: a linear warm-up, then constant, half a cosine or a line down to 0.

    The factors of diffusers' `get_scheduler`, as a function of the step alone: a stopped run needs no state of it.
    """
    if step < config.lr_warmup_steps:
        return config.learning_rate * step / config.lr_warmup_steps
    done = (step - config.lr_warmup_steps) / (config.steps - config.lr_warmup_steps)
    factors = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done}
    return config.learning_rate * factors[config.lr_scheduler]


def validation_loss(denoiser: Denoiser, images: TrainingImages, device: torch.device, evaluations: int = 32) -> float:
    """The mean flow loss at evenly spread times and fixed noise, going round the crops: comparable between runs."""
    losses = []
    for index in range(evaluations):
        crop, t = index % len(images.latents), torch.full((1,), (index + 0.5) / evaluations)
        clean, noise = images.latents[crop][:1].to(device), generator_of("validation", index)
        losses.append(loss_at(denoiser, clean, images.prompt_of(crop), t, noise))
    return sum(losses) / len(losses)


def views(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """flat [..., total] as one view [..., *shape] for each shape, in order."""
    parts = flat.split([shape.numel() for shape in shapes], dim=-1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


def in_one_buffer(weights: Sequence[nn.Parameter], spare: int = 0) -> tuple[nn.Parameter, Tensor]:
    """(one parameter [total], its gradient's buffer [total + spare]): weights and gradients become views of them."""
    shapes = [weight.shape for weight in weights]
    flat = nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
    gradients = flat.new_zeros(flat.numel() + spare)
    flat.grad = gradients[: flat.numel()]
    for weight, value, gradient in zip(weights, views(flat.data, shapes), views(flat.grad, shapes), strict=True):
        weight.data, weight.grad = value, gradient
    return flat, gradients


# The weights' average along the training's path lies closer to the minimum than the weights of any one step. At a
# constant learning rate the weights circle around where they would settle (Polyak and Juditsky 1992); an exponential
# moving average, as in other trainers' EMA, gets there without a falling rate, so that one training still gives LoRAs
# at several step counts. Training goes on from the weights themselves: the average changes no step of it.
AVERAGE = "average"  # beside AdamW's moments in its state, so that it is saved and put back with them


@torch.no_grad()
def follow(optimizer: torch.optim.Optimizer, window: int) -> None:
    """After a step: move the average by 1/window towards the weights; the plain mean of all steps before `window`."""
    for flat in weights_of(optimizer):
        state = optimizer.state[flat]
        average = state.setdefault(AVERAGE, torch.zeros_like(flat))
        average.lerp_(flat, 1 / min(window, int(state["step"])))


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """While inside, the weights are their average, if one was kept; afterwards they are the same bits as before."""
    kept = [(flat, flat.detach().clone()) for flat in weights_of(optimizer)]
    settle(optimizer)
    try:
        yield
    finally:
        with torch.no_grad():
            for flat, weights in kept:
                flat.copy_(weights)


@torch.no_grad()
def settle(optimizer: torch.optim.Optimizer) -> None:
    """Training is over: the weights become their average, if one was kept."""
    for flat in weights_of(optimizer):
        if (average := optimizer.state[flat].get(AVERAGE)) is not None:
            flat.copy_(average)


def weights_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What it moves."""
    return [flat for group in optimizer.param_groups for flat in group["params"]]

"""Stage 2 (paper, Algorithm 2): fit the heads to one photo, on a Meta-Down that does not move.

The baselines run in the same loop: a plain LoRA has no Meta-Down and trains its own down, with the crops or with the
whole photo; DreamBooth's prior preservation adds the loss on images that the base made of the class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import PersonalizeConfig, Step, UserError
from .adapter import IDENTITY, ROLES, SHARED, Adapters
from .flow import Denoiser, flow_loss, generator_of, noised, velocity


@dataclass(frozen=True)
class TrainingImages:
    """What is learned from: each crop's latents [views, c, h, w], a view as it is and one mirrored; and a prompt."""

    latents: Sequence[Tensor]
    prompt: Any

    def draw(self, step: int, batch: int, key: tuple[object, ...]) -> Tensor:
        """The batch [batch, c, h, w] of a step: shuffled passes over the crops, each mirrored by the toss of a coin.

        "for iter, for item" in Algorithm 2: 375 steps over 25 crops see each crop 15 times. A batch has one size, so
        one larger than 1 is filled up with other crops of the first one's size.
        """
        crops = len(self.latents)
        order = torch.randperm(crops, generator=generator_of(*key, "pass", step // crops))
        generator = generator_of(*key, "draw", step)
        first = self.latents[int(order[step % crops])]
        same_size = [views for views in self.latents if views.shape[1:] == first.shape[1:]]
        others = torch.randint(len(same_size), (batch - 1,), generator=generator)
        chosen = [first, *(same_size[int(other)] for other in others)]
        return torch.stack([views[int(torch.randint(len(views), (1,), generator=generator))] for views in chosen])


def trained_roles(config: PersonalizeConfig) -> tuple[str, ...]:
    """Meta-LoRA trains the heads alone; a plain LoRA has no heads on a shared matrix and trains all it has."""
    return IDENTITY if config.method == "meta-lora" else ROLES


def new_optimizer(adapters: Adapters, config: PersonalizeConfig) -> torch.optim.AdamW:
    """AdamW on the weights that stage 2 trains; the others are frozen here."""
    roles = trained_roles(config)
    for weight in adapters.parameters(SHARED):
        weight.requires_grad_("down" in roles)
    return torch.optim.AdamW(adapters.parameters(roles), lr=config.learning_rate, weight_decay=config.weight_decay)


def personalize(
    denoiser: Denoiser,
    optimizer: torch.optim.Optimizer,
    images: TrainingImages,
    config: PersonalizeConfig,
    *,
    prior: TrainingImages | None = None,
    start: int = 0,
) -> Iterator[Step]:
    """Yield after every optimizer step; the adapters are attached by the caller. `start` continues a stopped run."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    device = weights[0].device
    for step in range(start, config.steps):
        latents = images.draw(step, config.batch, (config.seed, "crops")).to(device)
        generator = generator_of(config.seed, "noise", step)
        loss = flow_loss(denoiser, latents, images.prompt, generator, config.time_sampling)
        loss.backward()
        if prior is not None:
            latents = prior.draw(step, config.batch, (config.seed, "prior")).to(device)
            prior_loss = flow_loss(denoiser, latents, prior.prompt, generator, config.time_sampling)
            (config.prior_weight * prior_loss).backward()
        if config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        value = loss.item()
        if not abs(value) < float("inf"):
            raise UserError(
                f"The loss became {value} at step {step + 1}. What was saved before is kept. "
                "Lower the learning rate, or clip the gradient with max_grad_norm = 1."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(step + 1, config.steps, value)


@torch.no_grad()
def validation_loss(denoiser: Denoiser, images: TrainingImages, device: torch.device, evaluations: int = 32) -> float:
    """The mean flow loss at evenly spread times and fixed noise, going round the crops: comparable between runs."""
    losses = []
    for index in range(evaluations):
        clean = images.latents[index % len(images.latents)][:1].to(device)
        noise = torch.randn(clean.shape, generator=generator_of("validation", index)).to(clean)
        t = torch.full((1,), (index + 0.5) / evaluations).to(clean)
        error = denoiser(noised(clean, noise, t), t, images.prompt) - velocity(clean, noise)
        losses.append(error.square().mean().item())
    return sum(losses) / len(losses)

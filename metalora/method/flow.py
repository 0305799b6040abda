"""Rectified flow (the paper's objective on FLUX): the path, its velocity, the times, the loss.

One convention everywhere: t = 0 is clean, t = 1 is noise.
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..config import Step

# What a denoiser is to the method: (noised [b, c, h, w], t [b], prompt) -> velocity [b, c, h, w].
Denoiser = Callable[[Tensor, Tensor, Any], Tensor]


@dataclass(frozen=True)
class Times:
    """How training times in (0, 1) are drawn; `shift` then moves them, above 1 towards noise, below 1 towards detail.

    "logit-normal" is the sigmoid of a standard normal, the FLUX trainers' default.
    """

    kind: str = "logit-normal"
    shift: float = 1.0

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Times [count]."""
        if self.kind == "uniform":
            t = torch.rand(count, generator=generator)
        else:
            t = torch.sigmoid(torch.randn(count, generator=generator))
        return t if self.shift == 1 else shifted(t, self.shift)


def noised(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) clean + t noise, one t per sample."""
    return torch.lerp(clean, noise, t.view(-1, *[1] * (clean.ndim - 1)))


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """d x_t / dt: what the denoiser must predict."""
    return noise - clean


def shifted(t: Tensor, shift: float) -> Tensor:
    """Times moved towards noise: shift t / (1 + (shift - 1) t)."""
    return shift * t / (1 + (shift - 1) * t)


def flow_loss(
    denoiser: Denoiser,
    latents: Tensor,
    prompt: Any,
    generator: torch.Generator,
    times: Times = Times(),
    weights: Tensor | None = None,
) -> Tensor:
    """Plain mean squared error of the predicted velocity. Draws on the CPU: one seed, one run, any device.

    Weights [b, 1, h, w], if there are some, say what each cell counts.
    """
    return flow_losses(denoiser, [latents], prompt, [generator], times, [weights])[0]


def flow_losses(
    denoiser: Denoiser,
    batches: Sequence[Tensor],
    prompt: Any,
    generators: Sequence[torch.Generator],
    times: Times = Times(),
    weights: Sequence[Tensor | None] = (),
) -> list[Tensor]:
    """The loss of each batch [b, c, h, w], all in one forward pass; each draws from its own generator.

    Weights [b, 1, h, w] of a batch, if it has some, say what each of its cells counts.
    """
    drawn = [
        (times.draw(len(batch), generator), torch.randn(batch.shape, generator=generator))
        for batch, generator in zip(batches, generators, strict=True)
    ]
    latents = torch.cat(list(batches))
    t, noise = (torch.cat(parts).to(latents) for parts in zip(*drawn, strict=True))
    predicted = denoiser(noised(latents, noise, t), t, prompt)
    errors = (predicted - velocity(latents, noise)).square().split([len(batch) for batch in batches])
    weighted = zip(errors, weights or [None] * len(batches), strict=True)
    return [(error if weight is None else weight * error).mean() for error, weight in weighted]


@torch.no_grad()
def loss_at(
    denoiser: Denoiser,
    clean: Tensor,
    prompt: Any,
    t: Tensor,
    generator: torch.Generator,
    weights: Tensor | None = None,
) -> float:
    """The loss of clean [b, c, h, w] at given times [b]; of one generator's noise it can be compared between runs."""
    noise, t = torch.randn(clean.shape, generator=generator).to(clean), t.to(clean)
    error = (denoiser(noised(clean, noise, t), t, prompt) - velocity(clean, noise)).square()
    return (error if weights is None else weights * error).mean().item()


def noise_of(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """[n, c, h, w]: each image's own noise, as a CPU generator draws it."""
    return torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def euler(
    velocity_at: Callable[[Tensor, Tensor], Tensor], latents: Tensor, times: Tensor
) -> Generator[Step, None, Tensor]:
    """From noise [n, c, h, w] to latents on the CPU in Euler steps of the velocity between times [steps + 1]."""
    steps = len(times) - 1
    for index in range(steps):
        latents = latents + (times[index + 1] - times[index]) * velocity_at(latents, times[index].expand(len(latents)))
        yield Step(index + 1, steps)
    return latents.cpu()


def joined(prompts: Sequence[Any]) -> Any:
    """Prompts, each tensors [b, ...] by name, as one for a batch of all their samples.

    Tensors [b, n, ...] of several n are filled up with zeros, and "<name>_mask" [b, n] then says which are real.
    """
    parts: dict[str, Tensor] = {}
    for name in prompts[0]:
        own = [prompt[name] for prompt in prompts]
        longest = max(part.shape[1] for part in own)
        parts[name] = torch.cat([filled_up(part, longest) for part in own])
        if any(part.shape[1] < longest for part in own):
            real = [torch.ones(part.shape[:2], dtype=torch.bool, device=part.device) for part in own]
            parts[f"{name}_mask"] = torch.cat([filled_up(kept, longest) for kept in real])
    return parts


def filled_up(part: Tensor, length: int) -> Tensor:
    """[b, n, ...] -> [b, length, ...], with zeros behind."""
    if part.shape[1] == length:
        return part
    return torch.cat([part, part.new_zeros(len(part), length - part.shape[1], *part.shape[2:])], dim=1)


def generator_of(*key: object) -> torch.Generator:
    """A CPU generator for one purpose and step: what it draws depends on the key alone, not on what was drawn before.

    So a resumed run needs no stored random state, and people trained together draw what they would draw alone.
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def shuffled(index: int, count: int, *key: object) -> int:
    """Which of so many comes at this place of shuffled passes over all of them; it depends on the key alone."""
    turn, position = divmod(index, count)
    return _order(count, *key, turn)[position]


@lru_cache(64)  # an order is asked for again and again
def _order(count: int, *key: object) -> list[int]:
    return torch.randperm(count, generator=generator_of(*key)).tolist()

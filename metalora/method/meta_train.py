"""Stage 1 (paper, Algorithm 1): one Meta-Down that serves every identity.

Is it getting better at being adapted? `adaptability` is stage 2 in short, on people who are not trained on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Step, UserError
from ..config_meta_train import MetaTrainConfig
from .adapter import IDENTITY, SHARED, Adapter, Adapters, Site, small_random
from .buckets import Draws, Person, Sample, lanes, place
from .flow import Denoiser, Times, flow_loss, flow_losses, generator_of, loss_at
from .personalize import in_one_buffer, views
from .world import ALONE, World

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's own
TIMES = 8  # at which each unseen photo is measured, evenly spread


@dataclass(frozen=True)
class Batch:
    """This process's share of a step's photos: latents [b, c, h, w] and prompts, one a sample; b may be 0.

    Weights [b, 1, h, w], if there are some, say what each cell counts in the loss.
    """

    step: int
    samples: list[Sample]
    latents: Tensor
    prompt: Any
    weights: Tensor | None = None


class FlatDown:
    """The Meta-Down of all sites: one parameter, one gradient, torch's own AdamW.

    The gradient's buffer has one number more, which carries the loss along when processes add theirs up.
    """

    def __init__(self, weights: Sequence[nn.Parameter], weight_decay: float):
        self.weights = list(weights)
        self.flat, self.exchanged = in_one_buffer(weights, spare=1)
        self.optimizer = torch.optim.AdamW([self.flat], weight_decay=weight_decay, fused=True)

    def train(self, on: bool) -> None:
        """Whether backward reaches it; without, no linear layer has to save its input."""
        for weight in self.weights:
            weight.requires_grad_(on)

    def step(self, rate: float) -> None:
        """One AdamW step of the gradients that backward has left, which are cleared."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.exchanged.zero_()


class Heads:
    """Heads of some identities with their optimizer's state, a row each; a row that is not worn does not change at all.

    weights, mean, square [n, numbers of one identity's heads]; steps [n], how often a row has moved.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], names: Sequence[str], fresh: Sequence[Tensor]):
        self.parameters, self.names = list(parameters), list(names)
        self.shapes = [parameter.shape[1:] for parameter in parameters]
        numbers = sum(shape.numel() for shape in self.shapes)
        device, dtype = parameters[0].device, parameters[0].dtype
        self.weights = (torch.stack(list(fresh)) if fresh else torch.empty(0, numbers)).to(device, dtype)
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.steps = torch.zeros(len(names), dtype=torch.float64)
        self.rows = torch.zeros(0, dtype=torch.long)  # that are worn

    def load(self, rows: Tensor) -> None:
        """Sample b of the next batch goes through row rows[b]: the parameters become copies of those rows."""
        self.rows = rows
        worn = self.weights[rows.to(self.weights.device)]
        for parameter, value in zip(self.parameters, views(worn, self.shapes), strict=True):
            parameter.grad = None
            parameter.data = value

    @torch.no_grad()
    def step(self, rate: float, weight_decay: float) -> None:
        """AdamW (Loshchilov and Hutter, as in torch) on the worn rows alone; a row worn twice adds its gradients."""
        rows, slot = self.rows.unique(return_inverse=True)
        device = self.weights.device
        self.steps[rows] += 1
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        assert len(gradients) == len(self.parameters), "no loss has been sent backward through the worn heads"
        self.gradient = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
        corrections = [(1 - beta ** self.steps[rows])[:, None].to(self.weights) for beta in BETAS]
        rows, slot = rows.to(device), slot.to(device)
        gradient = self.weights.new_zeros(len(rows), self.weights.shape[1]).index_add_(0, slot, self.gradient)
        mean = self.mean[rows].lerp_(gradient, 1 - BETAS[0])
        square = self.square[rows].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        change = (mean / corrections[0]) / ((square / corrections[1]).sqrt_().add_(EPSILON))
        self.weights[rows] = self.weights[rows].mul_(1 - rate * weight_decay).sub_(change, alpha=rate)
        self.mean[rows], self.square[rows] = mean, square


def fresh_heads(shapes: Sequence[tuple[str, torch.Size]], *key: object) -> Tensor:
    """One identity's heads as a flat row: mids as a LoRA's down starts, ups zero; drawn from the key alone."""
    generator = generator_of(*key)
    drawn = (
        small_random(shape[0], shape[1], generator) if role == "mid" else torch.zeros(shape) for role, shape in shapes
    )
    return torch.cat([part.flatten() for part in drawn])


class MetaTraining:
    """What stage 1 changes: the Meta-Down with its optimizer, and the heads of the present bucket's people."""

    def __init__(
        self,
        sites: Sequence[Site],
        meta_down: dict[str, Tensor],
        buckets: Sequence[Sequence[Person]],
        config: MetaTrainConfig,
        device: torch.device | str = "cpu",
        world: World = ALONE,
    ):
        self.buckets, self.config, self.world = buckets, config, world
        self.adapters = per_sample_adapters(sites, meta_down, config).to(device)
        self.down = FlatDown(self.adapters.parameters(SHARED), config.weight_decay)
        self.visit = -1
        self.heads = self.new_heads([], "none")

    def new_heads(self, names: Sequence[str], *key: object) -> Heads:
        """Fresh heads: each identity's depend on its name and the key alone, not on who else is trained."""
        shapes = [
            (role, weight.shape[1:])
            for adapter in self.adapters.by_name.values()
            for role, weight in adapter.weights().items()
            if role in IDENTITY
        ]
        fresh = [fresh_heads(shapes, self.config.seed, *key, name) for name in names]
        return Heads(self.adapters.parameters(IDENTITY), names, fresh)

    def begin(self, visit: int) -> None:
        """The next bucket: fresh heads for those of its people who live here; the last bucket's are discarded."""
        self.visit = visit
        bucket = self.bucket(visit)
        own = [person.name for position, person in enumerate(bucket) if self.owner(position, visit) == self.world.rank]
        self.heads = self.new_heads(own, "heads", visit)
        self.row = {name: row for row, name in enumerate(own)}

    def bucket(self, visit: int) -> Sequence[Person]:
        """Buckets are gone round."""
        return self.buckets[visit % len(self.buckets)]

    def owner(self, position: int, visit: int) -> int:
        """The process that the person at this position of a bucket lives on."""
        return position % lanes(len(self.bucket(visit)), self.config.batch) % self.world.size

    def own(self, samples: Sequence[Sample], visit: int) -> list[Sample]:
        """Those of a batch whose people live here."""
        return [sample for sample in samples if self.owner(sample.position, visit) == self.world.rank]

    def rows(self, samples: Sequence[Sample]) -> Tensor:
        """Each sample's row in the heads."""
        bucket = self.bucket(self.visit)
        return torch.tensor([self.row[bucket[sample.position].name] for sample in samples], dtype=torch.long)

    def meta_down(self) -> dict[str, Tensor]:
        """Site name -> [meta_rank, in], copies on the CPU: what stage 1 is for."""
        return {name: adapter.down.detach().cpu().clone() for name, adapter in self.adapters.by_name.items()}


def meta_train(
    denoiser: Denoiser, training: MetaTraining, batches: Iterable[Batch], config: MetaTrainConfig
) -> Iterator[Step]:
    """Yield after every step. The caller attaches `training.adapters` and gives the batches of `planned`."""
    world, down = training.world, training.down
    for batch in batches:
        visit, _, warm_up = place(batch.step, config)
        if visit != training.visit:
            training.begin(visit)  # fresh heads for the bucket's people
        down.train(not warm_up)
        value = 0.0
        if batch.samples:
            training.heads.load(training.rows(batch.samples))  # each sample through its own person's heads
            value = backward(denoiser, batch, config)
            training.heads.step(config.learning_rate, config.weight_decay)  # whoever is absent does not move
        if warm_up:  # fresh heads are noise: until they have caught up, they are kept out of the Meta-Down
            value *= config.batch / max(1, len(batch.samples))  # nothing is exchanged: the mean of what is here
        else:
            down.exchanged[-1] = value
            world.add_up(down.exchanged)  # gradients and, riding along, the loss
            value = down.exchanged[-1].item()
        if not abs(value) < float("inf"):
            raise UserError(
                f"The loss became {value} at step {batch.step + 1}. The checkpoints before it are kept. "
                "Lower the learning rate."
            )
        if not warm_up:
            down.step(config.learning_rate)
        yield Step(batch.step + 1, config.steps, value)


def backward(denoiser: Denoiser, batch: Batch, config: MetaTrainConfig) -> float:
    """Add the gradients of this share of the global batch's mean loss, and return the share.

    A function of its own: the graph, which knows the size of the worn heads, must not outlive the step.
    """
    times = Times(config.time_sampling, config.time_shift)
    weights = () if batch.weights is None else batch.weights.split(1)
    losses = flow_losses(denoiser, batch.latents.split(1), batch.prompt, generators(batch, config), times, weights)
    loss = torch.stack(losses).sum() / config.batch
    loss.backward()
    return loss.item()


def planned(training: MetaTraining, config: MetaTrainConfig, start: int = 0) -> Iterator[tuple[int, int, list[Sample]]]:
    """(step, visit, the whole batch) of every step from `start` on; it depends on the seed alone."""
    draws, drawn_for = None, -1
    for step in range(start, config.steps):
        visit, iteration, _ = place(step, config)
        if draws is None or visit != drawn_for:
            draws, drawn_for = Draws(training.bucket(visit), visit, config), visit
        yield step, visit, draws.batch(iteration)


def generators(batch: Batch, config: MetaTrainConfig) -> list[torch.Generator]:
    """Of each sample's time and noise: by step and slot, whichever process has it."""
    return [generator_of(config.seed, "noise", batch.step, sample.slot) for sample in batch.samples]


def per_sample_adapters(sites: Sequence[Site], meta_down: dict[str, Tensor], config: MetaTrainConfig) -> Adapters:
    """Adapters whose heads are one matrix a sample, to be filled by `Heads.load`."""
    by_name = {}
    for site in sites:
        down = meta_down[site.name].clone()
        mid, up = down.new_zeros(1, config.rank, len(down)), down.new_zeros(1, site.out_features, config.rank)
        by_name[site.name] = Adapter(down, mid, up, config.scale)
    return Adapters(sites, by_name)


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

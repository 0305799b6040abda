"""Stage 1 across photos: heads are made from one photo of a person and judged on another.

    for each person of a batch: a photo A, and another photo B
        g = generator(face of A)                                   heads, made from A
        loss = flow loss on B of  h = W0 x + Up (g * (MetaDown x))
    MetaDown, Up and the generator learn together

Algorithm 1 of the paper fits heads to the photos whose loss then moves the Meta-Down. Whatever fits those photos is
rewarded, their walls and their light included. Here nothing of A but its face reaches the loss on B, so what is
rewarded is what a person keeps from photo to photo. There is no state per person: any number of people, no buckets.

The generator makes one gain for each direction of the Meta-Down at each site, Mid_i = diag(g_i), and Up is shared. It
stands for the thousands of heads that Algorithm 1 fits and throws away.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config import Step, UserError
from ..config_meta_train import MetaTrainConfig
from .adapter import Adapter, Adapters, Site, small_random
from .flow import Denoiser, Times, flow_losses, generator_of, loss_at, shuffled
from .personalize import in_one_buffer
from .shared_directions import ROW_LENGTH
from .world import ALONE, World

BETAS = (0.9, 0.99)  # of AdamW: gradients through 16 faces change faster than 0.999 follows
CLIP = 1.0  # the longest gradient, over all weights together
WARM_UP, DECAY = 100, 0.4  # steps in which the rates rise; the share of all steps in which they fall to FLOOR
FLOOR = 0.02
WIDE, NARROW = 512, 256  # hidden widths: 128 -> 512 -> 256 -> 52 x 16 are 0.4 M numbers
SPREAD = 2.0  # of the gains around 1 at the start: faces must differ, or their gradients do not either

Size = tuple[int, int]


class HeadGenerator(nn.Module):
    """Face embeddings [b, d] -> gains [b, sites, meta_rank]. Each row depends on its own face alone."""

    mean: Tensor
    spread: Tensor

    def __init__(self, embeddings: Tensor, sites: int, meta_rank: int, generator: torch.Generator):
        """`embeddings` [n, d] are the training people's: by their mean and spread each number is put on one scale."""
        super().__init__()
        self.sites, self.meta_rank = sites, meta_rank
        self.register_buffer("mean", embeddings.mean(0))
        self.register_buffer("spread", embeddings.std(0).clamp_min(1e-6))
        first, second = nn.Linear(embeddings.shape[1], WIDE), nn.Linear(WIDE, NARROW)
        gains = nn.Linear(NARROW, sites * meta_rank)
        with torch.no_grad():
            for layer in (first, second):
                layer.weight.copy_(small_random(layer.out_features, layer.in_features, generator))
                layer.bias.zero_()
            gains.weight.copy_(torch.randn(gains.weight.shape, generator=generator) * SPREAD / math.sqrt(NARROW))
            gains.bias.fill_(1.0)
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), gains)

    def forward(self, faces: Tensor) -> Tensor:
        gains = self.layers((faces - self.mean) / self.spread)
        return gains.unflatten(-1, (self.sites, self.meta_rank))


class GeneratedAdapter(Adapter):
    """up(g * down(x)), with each sample's own gains g [b, meta_rank], which `gains` holds while a batch passes."""

    gains: Tensor

    def forward(self, x: Tensor, adapter_indices: Tensor | None = None) -> Tensor:
        """x [b, ..., in] -> [b, ..., out] in x's dtype."""
        gains = self.gains.to(x.dtype)
        inner = x @ self.down.to(x.dtype).t()
        return (inner * gains.view(len(gains), *[1] * (x.ndim - 2), -1)) @ self.up.to(x.dtype).t()


class Pair(NamedTuple):
    """A sample: its slot in the batch, whose it is, the photo A that heads are made from, the photo B that judges."""

    slot: int
    person: int
    reference: int
    target: int


@dataclass(frozen=True)
class PairBatch:
    """This process's share of a step: faces [b, d] of the photos A; of the photos B latents [b, c, h, w] and prompts.

    Weights [b, 1, h, w], if there are some, say what each cell counts in the loss. A batch of unseen people also has a
    face of somebody else for each sample.
    """

    step: int
    slots: list[int]
    faces: Tensor
    latents: Tensor
    prompt: Any
    weights: Tensor | None = None
    others: Tensor | None = None


class Pairs:
    """Who is in which batch: every photo once a pass as B, beside another photo of the person as A.

    A batch has photos of one size, and what it holds depends on the seed and the step alone.
    """

    def __init__(self, sizes: Sequence[Sequence[Size]], batch: int, seed: int):
        """`sizes`: of each photo of each person, who has at least two."""
        assert all(len(photos) > 1 for photos in sizes), "whoever has one photo cannot be judged on another"
        self.photos_of = [len(photos) for photos in sizes]
        self.batch_size, self.key = batch, (seed, "pairs")
        self.by_size: dict[Size, list[tuple[int, int]]] = defaultdict(list)
        for person, photos in enumerate(sizes):
            for photo, size in enumerate(photos):
                self.by_size[size].append((person, photo))
        self.of_a_pass = [size for size, group in sorted(self.by_size.items()) for _ in range(-(-len(group) // batch))]

    def batch(self, step: int) -> list[Pair]:
        """All pairs of a step, counted from 0."""
        chosen = shuffled(step, len(self.of_a_pass), *self.key, "batches")
        size = self.of_a_pass[chosen]
        passed = step // len(self.of_a_pass) * self.of_a_pass.count(size)
        before = passed + chosen - self.of_a_pass.index(size)  # batches of this size
        group = self.by_size[size]
        pairs = []
        for slot in range(self.batch_size):
            person, target = group[shuffled(before * self.batch_size + slot, len(group), *self.key, size)]
            generator = generator_of(*self.key, "A", step, slot)
            other = torch.randint(self.photos_of[person] - 1, (1,), generator=generator).item()
            pairs.append(Pair(slot, person, int(other) + (other >= target), target))
        return pairs


class AcrossPhotos:
    """What this stage 1 changes: Meta-Down and shared up of every site, the generator, and their optimizer."""

    def __init__(
        self,
        sites: Sequence[Site],
        meta_down: dict[str, Tensor],
        generator: HeadGenerator,
        config: MetaTrainConfig,
        device: torch.device | str = "cpu",
        world: World = ALONE,
    ):
        self.config, self.world = config, world
        self.by_name: dict[str, GeneratedAdapter] = {}
        for site in sites:  # with a shared up of zeros: at first they change nothing, whatever the gains are
            down = meta_down[site.name].clone()
            self.by_name[site.name] = GeneratedAdapter(down, None, torch.zeros(site.out_features, len(down)))
        self.adapters = Adapters(sites, dict(self.by_name)).to(device)
        self.generator = generator.to(device)
        matrices = self.adapters.parameters()
        network = list(generator.parameters())
        self.flat, self.gradients = in_one_buffer([*matrices, *network], spare=1)  # the loss rides along
        cut = sum(weight.numel() for weight in matrices)
        groups = []
        for part, rate in ((slice(cut), config.learning_rate), (slice(cut, None), config.generator_rate)):
            weights = torch.nn.Parameter(self.flat.data[part])
            weights.grad = self.gradients[: self.flat.numel()][part]
            groups.append({"params": [weights], "lr": rate, "rate": rate})
        self.optimizer = torch.optim.AdamW(groups, betas=BETAS, weight_decay=0.0, fused=True)

    def set_heads(self, faces: Tensor | None, samples: int) -> None:
        """Sample b of the next batch gets the heads that the generator makes of faces[b]; None: heads of nothing."""
        gains = None if faces is None else self.generator(faces)
        for index, adapter in enumerate(self.by_name.values()):
            adapter.gains = adapter.down.new_zeros(samples, len(adapter.down)) if gains is None else gains[:, index]

    def tensors(self) -> dict[str, Tensor]:
        """What a Meta-Down file holds: of every site down, mid and the shared up; and "generator.<weight>".

        The rows of a trained Meta-Down differ in length, and heads would learn along the long ones alone. So down has
        the same directions as orthogonal rows of a fresh one's length, and mid what is left: mid @ down is as trained.
        """
        tensors = {f"generator.{name}": weight.cpu().clone() for name, weight in self.generator.state_dict().items()}
        for name, adapter in self.by_name.items():
            left, lengths, rows = torch.linalg.svd(adapter.down.detach().cpu(), full_matrices=False)
            tensors[f"{name}.down"] = ROW_LENGTH * rows
            tensors[f"{name}.mid"] = left * lengths / ROW_LENGTH
            tensors[f"{name}.up"] = adapter.up.detach().cpu().clone()
        return tensors

    def step(self, index: int, norm: Tensor) -> None:
        """One AdamW step of the gradients, whose norm this is, of all processes together; they are cleared."""
        self.gradients[:-1].mul_((CLIP / (norm + 1e-6)).clamp(max=1))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * rate_at(index, self.config.steps)
        self.optimizer.step()
        self.gradients.zero_()


def across_photos(denoiser: Denoiser, training: AcrossPhotos, batches: Iterable[PairBatch]) -> Iterator[Step]:
    """Yield after every step. The caller attaches `training.adapters`, and gives this process's share of each batch."""
    config = training.config
    times = Times(config.time_sampling, config.time_shift)
    for batch in batches:
        value = 0.0
        if batch.slots:
            training.set_heads(batch.faces, len(batch.slots))  # heads from the photos A
            generators = [generator_of(config.seed, "noise", batch.step, slot) for slot in batch.slots]
            weights = () if batch.weights is None else batch.weights.split(1)
            losses = flow_losses(denoiser, batch.latents.split(1), batch.prompt, generators, times, weights)
            loss = torch.stack(losses).sum() / config.batch  # judged on the photos B
            loss.backward()
            value = loss.item()
        training.gradients[-1] = value
        training.world.add_up(training.gradients)
        value, norm = training.gradients[-1].item(), training.gradients[:-1].norm()
        if not (abs(value) < float("inf") and norm.isfinite()):
            raise UserError(
                f"The loss became {value}, its gradient {norm.item():g}, at step {batch.step + 1}. The checkpoints "
                "before it are kept. Lower --learning-rate and --generator-rate."
            )
        training.step(batch.step, norm)
        yield Step(batch.step + 1, config.steps, value)


def rate_at(step: int, steps: int) -> float:
    """The share of the learning rates: a short rise, constant, and a straight fall over the last part of the run."""
    left = (steps - step) / (DECAY * steps)
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, max(FLOOR, left))


class Likeness(NamedTuple):
    """The mean loss on unseen people's photos B: with heads from their own face, from another's, and without heads."""

    own: float
    another: float
    none: float


@torch.no_grad()
def unseen_likeness(denoiser: Denoiser, training: AcrossPhotos, batches: Sequence[PairBatch]) -> Likeness:
    """How much of a person the generator's heads hold, on people who are not trained on, at fixed times and noise.

    Every process does its share of the batches.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    for batch in batches[training.world.rank :: training.world.size]:
        assert batch.others is not None, "no faces to compare with"
        count = len(batch.slots)
        t = (torch.arange(count) + 0.5) / count
        t = t[torch.randperm(count, generator=generator_of("unseen times", batch.step))]
        for place, faces in enumerate((batch.faces, batch.others, None)):
            training.set_heads(faces, count)
            noise = generator_of("unseen", batch.step)  # the same for all three
            sums[place] += count * loss_at(denoiser, batch.latents, batch.prompt, t, noise, batch.weights)
        sums[3] += count
    sums = sums.to(training.flat.device, torch.float32)
    training.world.add_up(sums)
    own, another, none, count = sums.tolist()
    return Likeness(own / count, another / count, none / count)

"""Who is trained together and which photos make a batch (paper, Algorithm 1; section "buckets" of its supplement).

Whatever is drawn depends on the seed and the step alone. So a stopped run needs no random state, and the same batches
come whether one process trains or several.

A bucket's people are dealt to as many lanes as a batch has photos, and a batch takes one photo from each lane: its
photos show different people, and processes that own whole lanes have equal work in every step.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..config_meta_train import MetaTrainConfig
from .flow import generator_of, shuffled

Size = tuple[int, int]


@dataclass(frozen=True)
class Person:
    """An identity as stage 1 sees it: its name, its class, and the size (width, height) of each photo."""

    name: str
    kind: str
    sizes: tuple[Size, ...]


class Place(NamedTuple):
    """Where a step lies: in which visit to a bucket, which iteration of it, and whether only heads move."""

    visit: int
    iteration: int
    warm_up: bool


class Sample(NamedTuple):
    """One photo of a batch: its slot, whose it is (a position in the bucket), which photo, and mirrored or not."""

    slot: int
    position: int
    photo: int
    mirrored: bool


def place(step: int, config: MetaTrainConfig) -> Place:
    """Step counts from 0; the buckets are gone round until the steps are used up."""
    visit, iteration = divmod(step, config.bucket_steps)
    return Place(visit, iteration, iteration < config.warmup_steps)


def deal(people: Sequence[Person], config: MetaTrainConfig) -> list[list[Person]]:
    """Buckets of at most `config.bucket_people`, as even as possible, each with the classes in the same proportion."""
    order = torch.randperm(len(people), generator=generator_of(config.seed, "buckets")).tolist()
    shuffled = sorted((people[index] for index in order), key=lambda person: person.kind)
    count = -(-len(people) // config.bucket_people)
    return [shuffled[start::count] for start in range(count)]


def lanes(people: int, batch: int) -> int:
    """Into how many lanes a bucket is dealt; the person at position p is in lane p modulo this."""
    return min(people, batch)


class Draws:
    """The batches of one visit to a bucket."""

    def __init__(self, bucket: Sequence[Person], visit: int, config: MetaTrainConfig):
        self.config, self.key = config, (config.seed, "visit", visit)
        self.lanes = lanes(len(bucket), config.batch)
        self.groups: dict[Size, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for position, person in enumerate(bucket):
            for photo, size in enumerate(person.sizes):
                self.groups[size][position % self.lanes].append((position, photo))
        # One entry a batch: (its size, which batch of that size in a pass). A pass shows about every photo once.
        self.batches = [
            (size, index)
            for size, by_lane in sorted(self.groups.items())
            for index in range(-(-sum(map(len, by_lane.values())) // config.batch))
        ]

    def batch(self, index: int) -> list[Sample]:
        """The photos of iteration `index` of the visit: one aspect ratio, one lane a slot."""
        size, number = self.batches[shuffled(index, len(self.batches), *self.key, "pass")]
        number += index // len(self.batches) * sum(other == size for other, _ in self.batches)
        tosses = torch.rand(self.config.batch, generator=generator_of(*self.key, "mirrored", index))
        mirrored = [toss < 0.5 for toss in tosses.tolist()]
        slots: dict[int, list[int]] = defaultdict(list)
        present = sorted(self.groups[size])
        for slot in range(self.config.batch):
            lane = slot % self.lanes
            slots[lane if lane in self.groups[size] else present[slot % len(present)]].append(slot)
        samples = [
            Sample(
                slot, *self._drawn(size, lane, number * len(taken) + count), bool(mirrored[slot] and self.config.flips)
            )
            for lane, taken in slots.items()
            for count, slot in enumerate(taken)
        ]
        return sorted(samples)

    def _drawn(self, size: Size, lane: int, index: int) -> tuple[int, int]:
        """Shuffled passes over a lane's photos of one size."""
        photos = self.groups[size][lane]
        return photos[shuffled(index, len(photos), *self.key, "lane", size, lane)]

"""The two objectives of stage 1 as one kind of run: what it steps through, saves, validates and leaves."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...backbones.protocol import Backbone, Denoiser
from ...config import Step
from ...config_meta_train import MetaTrainConfig
from ...method.across_photos import AcrossPhotos, HeadGenerator, PairBatch, Pairs, across_photos, unseen_likeness
from ...method.adapter import Adapters, random_meta_down
from ...method.buckets import deal, place
from ...method.flow import generator_of
from ...method.meta_train import MetaTraining, adaptability, meta_train, planned
from ...method.world import World
from ..training_files import load_optimizer, optimizer_tensors
from .people import People

Item = TypeVar("Item")
History = dict[str, list[float]]  # "losses", one a step; "validated" and what was found, one a validation

Plotted = tuple[str, str, dict[str, list[float]]]  # title, what is upwards, and lines by their names

ROWS = ("weights", "mean", "square", "steps")  # of heads


class AcrossRun:
    """Heads from one photo, judged on another. `PaperRun` has the same methods."""

    measures: tuple[str, ...] = ("own_face", "another_face", "no_heads")  # what a validation finds

    def __init__(self, people: People, training: AcrossPhotos):
        self.people, self.training = people, training
        self.pairs = self._pairs_of(people.train, training.config.seed)
        self.unseen = self._unseen()

    @property
    def adapters(self) -> Adapters:
        return self.training.adapters

    def about(self) -> str:
        """On whom, in words."""
        photos = sum(len(person.sizes) for person in self.people.train)
        return f"across {photos} photos of {len(self.people.train)} people"

    def steps(self, denoiser: Denoiser, start: int) -> Iterator[Step]:
        with closing(prefetched(self._batches(start))) as batches:
            yield from across_photos(denoiser, self.training, batches)

    def place(self, step: int) -> dict[str, int]:
        """Where a step, counted from 0, lies: more columns of the log."""
        return {}

    def validate(self, denoiser: Denoiser) -> tuple[float, ...]:
        """The measures on people who are held out; every process calls this. Empty if nobody is."""
        if not self.unseen:
            return ()
        found = tuple(unseen_likeness(denoiser, self.training, self.unseen))
        with torch.no_grad():  # it ended without heads; a preview of this step shows those of unseen people
            self.training.set_heads(self.unseen[-1].faces, len(self.unseen[-1].slots))
        return found

    def gains(self, history: History) -> list[float]:
        """What each validation found, as one number: more is better."""
        return [none - own for none, own in zip(history["no_heads"], history["own_face"], strict=True)]

    def plotted(self, history: History) -> Plotted:
        """What the lower half of the progress picture shows."""
        names = {"own_face": "heads from their own face", "another_face": "from another's", "no_heads": "no heads"}
        lines = {names[measure]: history[measure] for measure in self.measures}
        return "unseen people's other photos: own face below the others is a person learned", "loss", lines

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds, on process 0; every process calls this."""
        return {"weights": self.training.flat.detach().cpu().clone()} | optimizer_tensors(self.training.optimizer)

    def restore(self, state: dict[str, Tensor], step: int) -> None:
        with torch.no_grad():
            self.training.flat.copy_(state["weights"])
        load_optimizer(self.training.optimizer, state)

    def result(self) -> dict[str, Tensor]:
        """The tensors of the Meta-Down file."""
        return self.training.tensors()

    def _pairs_of(self, people: Sequence, seed: int) -> Pairs:
        return Pairs([person.sizes for person in people], self.training.config.batch, seed)

    def _batches(self, start: int) -> Iterator[PairBatch]:
        world = self.training.world
        for step in range(start, self.training.config.steps):
            own = self.pairs.batch(step)[world.rank :: world.size]
            yield self.people.pair_batch(self.people.train, step, own)

    def _unseen(self) -> list[PairBatch]:
        """About one pass over the photos of those held out, the same in every run."""
        held_out, config = self.people.held_out, self.training.config
        if len(held_out) < 2:
            return []
        pairs = self._pairs_of(held_out, 0)
        count = -(-sum(len(person.sizes) for person in held_out) // (2 * config.batch))
        batches = []
        for step in range(count):
            batch = pairs.batch(step)
            others = [held_out[(pair.person + 1) % len(held_out)].name for pair in batch]
            faces = torch.stack([self.people.faces[name].embeddings[0] for name in others])
            found = self.people.pair_batch(held_out, step, batch)
            batches.append(replace(found, others=faces.to(found.faces)))
        return batches


class PaperRun:
    """Algorithm 1."""

    measures: tuple[str, ...] = ("before", "after")

    def __init__(self, people: People, training: MetaTraining):
        self.people, self.training = people, training
        self.held_out = people.held_out_people()

    @property
    def adapters(self) -> Adapters:
        return self.training.adapters

    def about(self) -> str:
        return f"on {len(self.people.train)} people in {len(self.training.buckets)} buckets"

    def steps(self, denoiser: Denoiser, start: int) -> Iterator[Step]:
        config = self.training.config
        with closing(prefetched(self.people.batches(self.training, planned(self.training, config, start)))) as batches:
            yield from meta_train(denoiser, self.training, batches, config)

    def place(self, step: int) -> dict[str, int]:
        visit, _, warm_up = place(step, self.training.config)
        return {"bucket_visit": visit, "warm_up": int(warm_up)}

    def validate(self, denoiser: Denoiser) -> tuple[float, ...]:
        return adaptability(denoiser, self.training, self.held_out) if self.held_out else ()

    def gains(self, history: History) -> list[float]:
        return [before - after for before, after in zip(history["before"], history["after"], strict=True)]

    def plotted(self, history: History) -> Plotted:
        steps = self.training.config.validation_steps
        title = f"held-out people after {steps} steps on one photo: higher is better"
        return title, "fall of the loss on unseen photos", {"gain": self.gains(history)}

    def state(self) -> dict[str, Tensor]:
        heads, visit = gathered(self.training), {"visit": torch.tensor(self.training.visit)}
        return self.result() | optimizer_tensors(self.training.down.optimizer) | heads | visit

    def restore(self, state: dict[str, Tensor], step: int) -> None:
        training = self.training
        training.begin(int(state["visit"]))
        with torch.no_grad():
            for name, adapter in training.adapters.by_name.items():
                adapter.down.data.copy_(state[f"{name}.down"])
            for row, name in enumerate(training.heads.names):
                for part, stack in rows_of(training).items():
                    stack[row] = state[f"heads.{name}.{part}"].to(stack)
        load_optimizer(training.down.optimizer, state)

    def result(self) -> dict[str, Tensor]:
        return {f"{name}.down": down for name, down in self.training.meta_down().items()}


Run = AcrossRun | PaperRun  # a training of stage 1


def new_run(people: People, backbone: Backbone, config: MetaTrainConfig, world: World) -> Run:
    """The objective that the config names, at its start."""
    sites = backbone.sites(config.sites)
    down = random_meta_down(sites, config.meta_rank, generator_of(config.seed, "meta-down"))
    if config.objective == "paper":
        return PaperRun(people, MetaTraining(sites, down, deal(people.train, config), config, backbone.device, world))
    faces = torch.cat([people.faces[person.name].embeddings for person in people.train])
    generator = HeadGenerator(faces, len(sites), config.meta_rank, generator_of(config.seed, "head generator"))
    return AcrossRun(people, AcrossPhotos(sites, down, generator, config, backbone.device, world))


def rows_of(training: MetaTraining) -> dict[str, Tensor]:
    """What belongs to the identities of this process, a row each."""
    return {part: getattr(training.heads, part) for part in ROWS}


def gathered(training: MetaTraining) -> dict[str, Tensor]:
    """The heads of everyone in the bucket on process 0, by identity: another number of processes deals them anew."""
    heads: dict[str, Tensor] = {}
    device = training.down.flat.device
    for position, person in enumerate(training.bucket(training.visit)):
        owner = training.owner(position, training.visit)
        for part, stack in rows_of(training).items():
            own = owner == training.world.rank
            row = stack[training.row[person.name]] if own else stack.new_empty(stack.shape[1:])
            if own or training.world.rank == 0:
                row = training.world.to_first(row.to(device), owner)
            if training.world.rank == 0:
                heads[f"heads.{person.name}.{part}"] = row.clone()
    return heads


def prefetched(items: Iterable[Item], ahead: int = 3) -> Generator[Item, None, None]:
    """The same items in the same order, made by a thread up to `ahead` of the taker; its errors are raised here."""
    iterator: Iterator[Any] = iter(items)
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, iterator, end) for _ in range(ahead))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, iterator, end))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)

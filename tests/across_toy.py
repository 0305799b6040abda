"""Stage 1 across photos on the toy network: people whose faces say what their photos have in common."""

from types import SimpleNamespace

import torch
from toy import TOY_SITES, ToyDenoiser

from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs.meta_train.objectives import AcrossRun
from metalora.method.across_photos import AcrossPhotos, HeadGenerator, Pair, PairBatch, across_photos
from metalora.method.adapter import random_meta_down
from metalora.method.buckets import Person
from metalora.method.flow import generator_of
from metalora.method.world import ALONE, World

CONFIG = MetaTrainConfig(steps=24, batch=4, meta_rank=4, learning_rate=1e-2, generator_rate=1e-3)
SIZES = ((4, 2),) * 4 + ((2, 4),) * 2  # width, height: the network takes both


def toy_face(name: str, photo: int) -> torch.Tensor:
    """Three numbers of the person, and a little of the photo."""
    own = torch.randn(3, generator=generator_of("face", name))
    return own + 0.05 * torch.randn(3, generator=generator_of("face", name, photo))


def toy_latents(name: str, photo: int) -> torch.Tensor:
    """[16] numbers that the person's three decide, and a little of the photo."""
    drawn = torch.randn(16, 3, generator=generator_of("what faces look like"))
    own = drawn @ torch.randn(3, generator=generator_of("face", name))
    return own + 0.1 * torch.randn(16, generator=generator_of("photo", name, photo))


class ToyPeople:
    """In the place of `jobs.meta_train.people.People`, with nothing on disk."""

    def __init__(self, dtype: torch.dtype = torch.float32, train: int = 10, held_out: int = 4):
        people = [Person(f"person {number}", "person", SIZES) for number in range(train + held_out)]
        self.train, self.held_out, self.dtype = people[:train], people[train:], dtype
        self.faces = {
            person.name: SimpleNamespace(
                embeddings=torch.stack([toy_face(person.name, photo) for photo in range(len(SIZES))]).to(dtype)
            )
            for person in people
        }

    def pair_batch(self, people: list[Person], step: int, pairs: list[Pair]) -> PairBatch:
        """As `People.pair_batch` reads it from disk."""
        names = [people[pair.person].name for pair in pairs]
        faces = [self.faces[name].embeddings[pair.reference] for name, pair in zip(names, pairs, strict=True)]
        latents = [
            toy_latents(name, pair.target).view(2, *people[pair.person].sizes[pair.target][::-1]).to(self.dtype)
            for name, pair in zip(names, pairs, strict=True)
        ]
        return PairBatch(
            step,
            [pair.slot for pair in pairs],
            torch.stack(faces) if faces else torch.empty(0),
            torch.stack(latents) if latents else torch.empty(0),
            torch.ones(len(pairs), 8, dtype=self.dtype),
        )


def toy_run(
    config: MetaTrainConfig = CONFIG,
    people: ToyPeople | None = None,
    world: World = ALONE,
) -> AcrossRun:
    """As `new_run` makes it."""
    people = people or ToyPeople()
    down = random_meta_down(TOY_SITES, config.meta_rank, generator_of(config.seed, "meta-down"))
    faces = torch.cat([people.faces[person.name].embeddings for person in people.train])
    generator = HeadGenerator(faces, len(TOY_SITES), config.meta_rank, generator_of(config.seed, "head generator"))
    down = {name: weight.to(people.dtype) for name, weight in down.items()}
    training = AcrossPhotos(TOY_SITES, down, generator.to(people.dtype), config, world=world)
    return AcrossRun(people, training)


def trained(denoiser: ToyDenoiser, run: AcrossRun) -> list[float]:
    """Train to the end; the losses."""
    config = run.training.config
    batches = (run.people.pair_batch(run.people.train, step, run.pairs.batch(step)) for step in range(config.steps))
    with run.adapters.attached(denoiser.network):
        return [step.loss for step in across_photos(denoiser, run.training, batches)]

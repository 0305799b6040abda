"""Stage 1 on the toy network: people who have much in common and a little of their own."""

import torch
from toy import TOY_SITES, ToyDenoiser

from metalora.config_meta_train import MetaTrainConfig
from metalora.method.adapter import random_meta_down
from metalora.method.buckets import Person, deal
from metalora.method.flow import generator_of
from metalora.method.meta_train import Batch, MetaTraining, meta_train, planned
from metalora.method.world import ALONE, World

CONFIG = MetaTrainConfig(
    objective="paper",
    steps=24,
    bucket_steps=12,
    warmup_steps=5,
    batch=4,
    bucket_people=5,
    rank=2,
    meta_rank=8,
    learning_rate=1e-2,
    flips=False,
)
PEOPLE = [Person(f"person {n}", "woman" if n % 2 else "man", ((2, 4),) * 6) for n in range(10)]


def latents_of(name: str, photo: int) -> torch.Tensor:
    """A photo of a person: 2 for everyone, a little of the person, less of the photo."""
    own = torch.randn(2, 2, 4, generator=generator_of("person", name))
    return 2 + 0.5 * own + 0.1 * torch.randn(2, 2, 4, generator=generator_of("photo", name, photo))


def toy_training(config: MetaTrainConfig = CONFIG, world: World = ALONE, dtype: torch.dtype = torch.float32):
    down = random_meta_down(TOY_SITES, config.meta_rank, generator_of(config.seed, "meta-down"))
    down = {name: weight.to(dtype) for name, weight in down.items()}
    return MetaTraining(TOY_SITES, down, deal(PEOPLE, config), config, world=world)


def toy_batches(training: MetaTraining, config: MetaTrainConfig, start: int = 0):
    return loaded(training, planned(training, config, start))


def loaded(training: MetaTraining, steps):
    """The batches of planned steps, as `People.batches` reads them from disk."""
    dtype = training.down.flat.dtype
    for step, visit, samples in steps:
        own, bucket = training.own(samples, visit), training.bucket(visit)
        photos = [latents_of(bucket[sample.position].name, sample.photo).to(dtype) for sample in own]
        latents = torch.stack(photos) if photos else torch.empty(0, 2, 2, 4, dtype=dtype)
        yield Batch(step, own, latents, torch.ones(len(own), 8, dtype=dtype))


def toy_run(denoiser: ToyDenoiser, config: MetaTrainConfig = CONFIG, training: MetaTraining | None = None, start=0):
    """(what was trained, the losses)"""
    training = training or toy_training(config)
    with training.adapters.attached(denoiser.network):
        losses = [s.loss for s in meta_train(denoiser, training, toy_batches(training, config, start), config)]
    return training, losses

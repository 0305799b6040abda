"""Stage 1 from the directions of its people's first gradients: found once, kept beside the checkpoints."""

from pathlib import Path

import torch

from ..backbones.protocol import Backbone, Denoiser
from ..config import Phase, Step
from ..config_meta_train import MetaTrainConfig
from ..method.buckets import Person
from ..method.first_gradients import TURNS, FirstGradients, Found, random_directions
from ..method.flow import Times, flow_loss, generator_of
from ..method.meta_train import MetaTraining
from ..store import files
from . import Job
from .checkpoints import comparable
from .stage_one_people import People


def start_at_gradients(
    denoiser: Denoiser, training: MetaTraining, people: People, backbone: Backbone, facts: dict[str, str], folder: Path
) -> Job[None]:
    """Every process looks at its share of the people; `folder`/start.safetensors is the Meta-Down that was found.

    The adapters must not be attached: it is the base's own gradients that are looked at.
    """
    kept, ranks = folder / "start.safetensors", training.ranks
    if not (kept.is_file() and is_of_this_run(files.read(kept, ("meta-down",))[1], facts)):
        ranks.wait()  # nobody writes while another still looks
        found = yield from looked_for(denoiser, training, people, backbone)
        yield Phase(f"the start holds {found.held:.0%} of these people's first gradients")
        if ranks.index == 0:
            tensors = {f"{name}.down": down for name, down in found.meta_down.items()}
            files.write(kept, tensors, "meta-down", {**facts, "held": f"{found.held:.4f}"})
    ranks.wait()
    tensors, _ = files.read(kept, ("meta-down",))  # every process has the same numbers, to the last bit
    training.start_at({name.removesuffix(".down"): tensor for name, tensor in tensors.items()})


def looked_for(denoiser: Denoiser, training: MetaTraining, people: People, backbone: Backbone) -> Job[Found]:
    """The directions that the gradients of a few of the people share."""
    config, ranks = people.config, training.ranks
    sites = list(training.adapters.sites.values())
    directions = random_directions(sites, config.meta_rank, config.seed)
    gradients = FirstGradients(sites, directions, backbone.device, ranks)
    count = min(config.start_people, len(people.train))
    yield Phase(f"where the Meta-Down starts: the first gradients of {count} people in each of {TURNS} turns")
    with gradients.heard(denoiser.network):
        for turn in range(TURNS):
            if turn:
                gradients.turn()
            shown = looked_at(people.train, turn, count, config)
            for index, person in enumerate(shown):
                if index % ranks.count == ranks.index:
                    look_at(person, people, denoiser, ("start", config.seed, turn))
                    gradients.counted()
                yield Step(turn * count + index + 1, TURNS * count)
    return gradients.found(config.meta_rank)


def look_at(person: Person, people: People, denoiser: Denoiser, key: tuple[object, ...]) -> None:
    """One backward pass of the base over a few of someone's photos."""
    latents, prompt = people.some_photos(person, key)
    times = Times(people.config.time_sampling, people.config.time_shift)
    flow_loss(denoiser, latents, prompt, generator_of(*key, person.name), times).backward()


def looked_at(everyone: list[Person], turn: int, count: int, config: MetaTrainConfig) -> list[Person]:
    """So many people, others in each turn while there are some."""
    order = torch.randperm(len(everyone), generator=generator_of(config.seed, "looked at")).tolist()
    return [everyone[order[(turn * count + index) % len(order)]] for index in range(count)]


def is_of_this_run(found: dict[str, str], facts: dict[str, str]) -> bool:
    """Whether a start that was kept came from the same base, people and settings."""
    return all(comparable(found, name) == comparable(facts, name) for name in facts)

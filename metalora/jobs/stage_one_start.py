"""Stage 1 from what the first gradients of its people say: found once, kept beside the checkpoints."""

from pathlib import Path

import torch
from torch import Tensor

from ..backbones.protocol import Backbone, Denoiser
from ..config import Phase, Step
from ..config_meta_train import MetaTrainConfig
from ..method.buckets import Person
from ..method.even_rows import ROW_LENGTH
from ..method.first_gradients import (
    TURNS,
    FirstGradients,
    random_directions,
    refuse_more_directions_than_inputs,
)
from ..method.flow import Times, flow_loss, generator_of
from ..method.input_directions import InputDirections
from ..method.meta_train import MetaTraining
from ..method.repeated_gradients import LOOKS, RepeatedGradients
from ..store import files
from . import Job
from .checkpoints import comparable
from .stage_one_people import People

DRAWS = 4  # backward passes of a look, each with times and noise of its own


def start_at_gradients(
    denoiser: Denoiser, training: MetaTraining, people: People, backbone: Backbone, facts: dict[str, str], folder: Path
) -> Job[None]:
    """Every process looks at its share of the people; `folder`/start.safetensors is the Meta-Down that was found.

    The adapters must not be attached: it is the base's own gradients that are looked at.
    """
    kept, ranks = kept_in(folder), training.ranks
    if not (kept.is_file() and is_of_this_run(files.read(kept, ("meta-down",))[1], facts)):
        ranks.wait()  # nobody writes while another still looks
        look = repeated if people.config.start == "repeated" else shared
        found = yield from look(denoiser, training, people, backbone)
        if ranks.index == 0:
            files.write(kept, {f"{name}.down": down for name, down in found.items()}, "meta-down", facts)
    ranks.wait()
    training.start_at(read_start(folder))  # every process has the same numbers, to the last bit


def kept_in(folder: Path) -> Path:
    """Where the start of a run is."""
    return folder / "start.safetensors"


def read_start(folder: Path) -> dict[str, Tensor]:
    """[meta_rank, in] for each site."""
    tensors, _ = files.read(kept_in(folder), ("meta-down",))
    return {name.removesuffix(".down"): tensor for name, tensor in tensors.items()}


def row_lengths(config: MetaTrainConfig, folder: Path, names: list[str]) -> dict[str, float]:
    """How long the start's rows are at each site: what a Meta-Down is brought back to at the end."""
    if config.start != "repeated":
        return dict.fromkeys(names, ROW_LENGTH)
    return {name: rows.norm(dim=1).mean().item() for name, rows in read_start(folder).items()}


def shared(denoiser: Denoiser, training: MetaTraining, people: People, backbone: Backbone) -> Job[dict[str, Tensor]]:
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
                    loss_of(person, people, denoiser, ("start", config.seed, turn)).backward()
                    gradients.counted()
                yield Step(turn * count + index + 1, TURNS * count)
    found = gradients.found(config.meta_rank)
    yield Phase(f"the start holds {found.held:.0%} of these people's first gradients")
    return found.meta_down


def repeated(denoiser: Denoiser, training: MetaTraining, people: People, backbone: Backbone) -> Job[dict[str, Tensor]]:
    """The directions in which two looks at one person agree, after turns that find where inputs lie."""
    config, ranks = people.config, training.ranks
    sites = list(training.adapters.sites.values())
    refuse_more_directions_than_inputs(sites, config.meta_rank)
    inputs = InputDirections(sites, config.seed, backbone.device, ranks)
    count = min(config.start_people, len(people.train))
    if inputs.wide:
        yield Phase(f"where inputs lie: {count} people in each of {TURNS} turns")
    with inputs.heard(denoiser.network):
        for turn in range(TURNS if inputs.wide else 0):
            for index, person in enumerate(looked_at(people.train, turn, count, config)):
                if index % ranks.count == ranks.index:
                    with torch.no_grad():
                        loss_of(person, people, denoiser, ("start", config.seed, turn))
                yield Step(turn * count + index + 1, TURNS * count)
            inputs.turn()
    yield Phase(f"where the Meta-Down starts: {LOOKS} looks at each of {count} people")
    gradients = RepeatedGradients(sites, inputs.by_site(), backbone.device, ranks)
    for index, person in enumerate(looked_at(people.train, 0, count, config)):
        if index % ranks.count == ranks.index:
            for which in range(LOOKS):
                for draw in range(DRAWS):
                    noise = ("start", config.seed, which, draw)
                    with gradients.look(denoiser.network, which):
                        loss_of(person, people, denoiser, ("start", config.seed), noise, which, LOOKS).backward()
            gradients.counted()
        yield Step(index + 1, count)
    return gradients.found(config.meta_rank)


def loss_of(
    person: Person,
    people: People,
    denoiser: Denoiser,
    key: tuple[object, ...],
    noise: tuple[object, ...] = (),
    part: int = 0,
    parts: int = 1,
) -> Tensor:
    """On a few of someone's photos, or a part of them; the key draws the photos, and noise where it has no key."""
    latents, prompt, weights = people.some_photos(person, key, part, parts)
    times = Times(people.config.time_sampling, people.config.time_shift)
    return flow_loss(denoiser, latents, prompt, generator_of(*(noise or key), person.name), times, weights)


def looked_at(everyone: list[Person], turn: int, count: int, config: MetaTrainConfig) -> list[Person]:
    """So many people, others in each turn while there are some."""
    order = torch.randperm(len(everyone), generator=generator_of(config.seed, "looked at")).tolist()
    return [everyone[order[(turn * count + index) % len(order)]] for index in range(count)]


def is_of_this_run(found: dict[str, str], facts: dict[str, str]) -> bool:
    """Whether a start that was kept came from the same base, people and settings."""
    return all(comparable(found, name) == comparable(facts, name) for name in facts)

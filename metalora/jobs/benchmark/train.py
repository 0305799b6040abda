"""Personalizing a benchmark's people, a group in one forward pass, several step counts from one training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...backbones.protocol import Backbone, Denoiser, Prompt
from ...config import PersonalizeConfig
from ...method.adapter import Adapters, fold_all
from ...method.personalize import Person
from ...method.stacks import stacked, taken_out
from ...store.cache import Cache
from .. import Job
from ..memory import wants_checkpointing
from ..personalize import person_of, plan_photos, run_metadata, train
from ..photos import crop_latents, prior_images
from ..training_files import SavedRun, save_lora, starting_adapters
from .plan import Layout, Plan, PlannedPerson, Variant
from .plan_file import located


@dataclass(frozen=True)
class Training:
    """One training of a group: a method at a rank, up to the largest step count."""

    method: str
    rank: int
    group: int
    people: Sequence[PlannedPerson]
    variants: Mapping[int, Variant]  # by step count


def trainings_of(plan: Plan, group: int) -> list[Training]:
    """Everything that a group is trained for."""
    people = [person for person in plan.people if person.group == group]
    found: dict[tuple[str, int], dict[int, Variant]] = {}
    for variant in plan.variants():
        if variant.steps is not None and variant.rank is not None:
            found.setdefault((variant.method, variant.rank), {})[variant.steps] = variant
    return [Training(*key, group, people, variants) for key, variants in found.items()]


def is_trained(training: Training, layout: Layout) -> bool:
    """Whether all its LoRAs are there."""
    return all(
        layout.lora(variant, person).exists() for variant in training.variants.values() for person in training.people
    )


@dataclass(frozen=True)
class Learner:
    """One of a group, ready to be trained."""

    planned: PlannedPerson
    adapters: Adapters
    person: Person
    metadata: dict[int, dict[str, str]]  # of the LoRA file, by step count


@dataclass(frozen=True)
class Bench:
    """What every training of a run needs."""

    plan: Plan
    layout: Layout
    photos: Mapping[str, Path]  # the references by identity
    backbone: Backbone
    prompts: Mapping[str, Prompt]  # embeddings by text
    cache: Cache

    @property
    def faces(self) -> str:
        """Who finds faces."""
        return located(self.plan.faces["name"], self.layout.run)


def encode_crops(training: Training, bench: Bench) -> Job[None]:
    """Fill the cache before the transformer is loaded: the autoencoder and it may not fit together while training."""
    config = config_of(training, bench.plan, training.people[0], max(training.variants))  # of crops all have the same
    crops, photos = bench.plan.crop_config(), [bench.photos[p.identity] for p in training.people]
    planned = plan_photos(photos, config, crops, bench.backbone, bench.faces)
    yield from crop_latents(planned, bench.backbone, crops.flips, bench.cache)


def train_group(training: Training, bench: Bench, denoiser: Denoiser) -> Job[None]:
    """Write the LoRA of each of the group's people at each step count; goes on where it was stopped."""
    learners = []
    for planned in training.people:
        learners.append((yield from learner_of(planned, training, bench, denoiser)))
    stack = stacked([learner.adapters for learner in learners]).to(bench.backbone.device)
    config = config_of(training, bench.plan, training.people[0], max(training.variants))
    denoiser.checkpointing(wants_checkpointing(bench.backbone, config, bench.plan.crop_config()))
    state = bench.layout.state(training.method, training.rank, training.group)
    saved = SavedRun(state, {"plan": bench.plan.sha256(), "group": " ".join(p.identity for p in training.people)})
    done = saved.steps()
    passed = [variant for steps, variant in training.variants.items() if steps <= done]
    if not all(bench.layout.lora(variant, person).exists() for variant in passed for person in training.people):
        saved.remove()  # a LoRA that it is past has been deleted: from the start again, to the same bytes
    at = {steps: partial(save_loras, stack, variant, learners, bench) for steps, variant in training.variants.items()}
    yield from train(denoiser, stack, [learner.person for learner in learners], config, saved, at)
    saved.remove()


def config_of(training: Training, plan: Plan, person: PlannedPerson, steps: int) -> PersonalizeConfig:
    """This person's settings."""
    return plan.training_of(training.method, training.rank, person, steps)


def learner_of(planned: PlannedPerson, training: Training, bench: Bench, denoiser: Denoiser) -> Job[Learner]:
    """Fresh adapters, the crops and, where they are asked for, images of the class to hold on to."""
    plan, backbone, crops = bench.plan, bench.backbone, bench.plan.crop_config()
    config = config_of(training, plan, planned, max(training.variants))
    adapters, origin = starting_adapters(backbone, config, meta_down_of(planned, training.method, bench))
    photo = plan_photos([bench.photos[planned.identity]], config, crops, backbone, bench.faces)
    person = yield from person_of(photo, backbone, config, crops, bench.prompts[config.prompt], bench.cache)
    if config.prior_weight:
        class_prompt = bench.prompts[config.class_prompt]
        prior = yield from prior_images(denoiser, class_prompt, backbone, config, crops, bench.cache)
        person = replace(person, prior=prior)
    metadata = {
        steps: run_metadata(backbone, config_of(training, plan, planned, steps), crops, photo, origin)
        for steps in training.variants
    }
    return Learner(planned, adapters, person, metadata)


def meta_down_of(planned: PlannedPerson, method: str, bench: Bench) -> str | None:
    """The file of the person's class."""
    if method != "meta-lora":
        return None
    return located(bench.plan.meta_downs[planned.class_name]["path"], bench.layout.run)


def save_loras(stack: Adapters, variant: Variant, learners: Sequence[Learner], bench: Bench) -> None:
    """Everyone's ordinary LoRA as it is now."""
    assert variant.steps is not None
    for row, learner in enumerate(learners):
        path = bench.layout.lora(variant, learner.planned)
        lora = fold_all(taken_out(stack, row))
        save_lora(path, lora, "diffusers", bench.backbone.architecture, learner.metadata[variant.steps])

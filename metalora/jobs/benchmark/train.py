"""Personalizing a benchmark's people, a group in one forward pass, several step counts from one training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...backbones.protocol import Backbone, Denoiser, Prompt
from ...config import CropConfig, PersonalizeConfig
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
class Group:
    """People who are trained in one forward pass, each with adapters of their own in the stack."""

    stack: Adapters
    people: list[Person]
    metadata: list[dict[int, dict[str, str]]]  # of each one's LoRA file, by step count

    def save(self, steps: int, loras: Sequence[Path], backbone: Backbone) -> None:
        """Everyone's ordinary LoRA as it is now, after so many steps."""
        for row, (path, metadata) in enumerate(zip(loras, self.metadata, strict=True)):
            save_lora(path, fold_all(taken_out(self.stack, row)), "diffusers", backbone.architecture, metadata[steps])


def group_of(
    photos: Sequence[Path],
    configs: Sequence[PersonalizeConfig],
    step_counts: Iterable[int],
    crops: CropConfig,
    backbone: Backbone,
    faces: str,
    meta_down: str | None,
    prompts: Mapping[str, Prompt],
    cache: Cache,
) -> Job[Group]:
    """Everyone's fresh adapters and crops, encoded if they are not yet; `configs` differ in class and seed alone."""
    planned = plan_photos(photos, configs[0], crops, backbone, faces)
    yield from crop_latents(planned, backbone, crops.flips, cache)  # of everyone, while the autoencoder is there
    adapters, people, metadata = [], [], []
    for photo, config in zip(planned, configs, strict=True):
        own, origin = starting_adapters(backbone, config, meta_down)
        adapters.append(own)
        people.append((yield from person_of([photo], backbone, config, crops, prompts[config.prompt], cache)))
        said = {n: run_metadata(backbone, replace(config, steps=n), crops, [photo], origin) for n in step_counts}
        metadata.append(said)
    return Group(stacked(adapters).to(backbone.device), people, metadata)


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


def inputs_of(training: Training, bench: Bench) -> tuple[list[Path], list[PersonalizeConfig]]:
    """Everyone's photo, and everyone's settings up to the largest step count."""
    method, rank, steps = training.method, training.rank, max(training.variants)
    configs = [bench.plan.training_of(method, rank, person, steps) for person in training.people]
    return [bench.photos[person.identity] for person in training.people], configs


def encode_crops(training: Training, bench: Bench) -> Job[None]:
    """Fill the cache before the transformer is loaded: the autoencoder and it may not fit together while training."""
    photos, (config, *_) = inputs_of(training, bench)
    crops = bench.plan.crop_config()
    planned = plan_photos(photos, config, crops, bench.backbone, bench.faces)
    yield from crop_latents(planned, bench.backbone, crops.flips, bench.cache)


def train_group(training: Training, bench: Bench, denoiser: Denoiser) -> Job[None]:
    """Write the LoRA of each of the group's people at each step count; goes on where it was stopped."""
    plan, layout, backbone, prompts, cache = bench.plan, bench.layout, bench.backbone, bench.prompts, bench.cache
    crops, (photos, configs), meta_down = plan.crop_config(), inputs_of(training, bench), None
    if training.method == "meta-lora":  # the file of the group's class
        meta_down = located(plan.meta_downs[training.people[0].class_name]["path"], layout.run)
    group = yield from group_of(
        photos, configs, training.variants, crops, backbone, bench.faces, meta_down, prompts, cache
    )
    people = group.people
    if configs[0].prior_weight:  # images of the class to hold on to
        class_prompts = [prompts[config.class_prompt] for config in configs]
        for row, (config, prompt) in enumerate(zip(configs, class_prompts, strict=True)):
            prior = yield from prior_images(denoiser, prompt, backbone, config, crops, cache)
            people[row] = replace(people[row], prior=prior)
    denoiser.checkpointing(wants_checkpointing(backbone, configs[0], crops))
    state = layout.state(training.method, training.rank, training.group)
    saved = SavedRun(state, {"plan": plan.sha256(), "group": " ".join(p.identity for p in training.people)})
    done = saved.steps()
    loras = {n: [layout.lora(variant, one) for one in training.people] for n, variant in training.variants.items()}
    if not all(path.exists() for steps, paths in loras.items() if steps <= done for path in paths):
        saved.remove()  # a LoRA that it is past has been deleted: from the start again, to the same bytes
    at = {steps: partial(group.save, steps, paths, backbone) for steps, paths in loras.items()}
    yield from train(denoiser, group.stack, people, configs[0], saved, at)
    saved.remove()

"""The plan of a benchmark run: everything its results depend on, decided before anything is made.

`plan.json` holds hashes of all inputs, so that a run which is stopped, moved or dealt to several machines stays the
same run, and one whose inputs changed is refused.
"""

import json
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from ...backbones.pipeline import AS_IT_IS, PipelineBackbone
from ...backbones.protocol import Backbone
from ...config import NONE, CropConfig, GenerateConfig, PersonalizeConfig, UserError
from ...config_benchmark import BenchmarkConfig
from ...method.flow import generator_of
from ...store import files
from ...store.manifest import Manifest
from ...store.prompts import BenchmarkPrompt

FORMAT = "metalora-plan-3"
EXTERNAL = "external"
LABELS = {NONE: "no LoRA", "meta-lora": "Meta-LoRA", "lora": "LoRA"}


@dataclass(frozen=True)
class PlannedPerson:
    """Someone to be personalized, with the seed of all that is drawn for them."""

    identity: str
    class_name: str
    part: str
    reference: str  # where the run keeps its copy
    seed: int
    group: int  # who is personalized together


@dataclass(frozen=True)
class PlannedPrompt:
    """A prompt, what it says for each class, and the seeds of its images' noise: the same for every method."""

    id: str
    part: str
    class_name: str | None
    group: str | None
    text: str
    tags: tuple[str, ...]
    asks: dict[str, str]
    filled: dict[str, str]  # by class
    noise_seeds: dict[str, int]  # by seed

    def asked_of(self, person: PlannedPerson) -> bool:
        """Whether this person gets it."""
        return self.part == person.part and self.class_name in (None, person.class_name)


@dataclass(frozen=True)
class Variant:
    """One row of the results."""

    id: str
    method: str
    label: str
    steps: int | None
    rank: int | None


Cell = tuple[Variant, PlannedPerson]  # a person's images of a variant


@dataclass(frozen=True)
class Plan:
    """What `plan.json` holds."""

    format: str
    name: str
    manifest: str
    manifest_sha256: str
    prompts_file: str
    prompts_sha256: str
    methods: list[str]
    step_counts: list[int]
    ranks: list[int]
    seeds: list[int]
    images_at_once: int
    threads: int  # rounding depends on it, so that it cannot be the machine's
    training: dict[str, Any]  # PersonalizeConfig, without what the variants and the people decide
    crops: dict[str, Any]  # CropConfig
    sampling: dict[str, Any]  # GenerateConfig, without seeds
    meta_downs: dict[str, dict[str, str]]  # by class: path and sha256 of the tensors
    backbone: dict[str, str]  # name and fingerprint
    backbone_flags: dict[str, str]  # how to find it again
    faces: dict[str, str]  # name and sha256
    clip: dict[str, str] | None  # how it was named, and sha256
    people: list[PlannedPerson]
    prompts: list[PlannedPrompt]
    alternatives: dict[str, dict[str, str]]  # attribute -> value -> phrase, as the prompts file has them
    gallery: list[str]  # whom a generated face is looked for among: everyone with held-out photos
    speed: dict[str, Any] = field(default_factory=dict)  # how the base is run, where that is not `AS_IT_IS`
    learning_rates: dict[str, float] = field(default_factory=dict)  # by method, of those that have their own
    drawn_with: dict[str, str] = field(default_factory=dict)  # name and fingerprint, where another base makes images
    drawn_with_flags: dict[str, str] = field(default_factory=dict)

    def variants(self) -> list[Variant]:
        """Every method at every step count and rank."""
        found = [Variant(NONE, NONE, LABELS[NONE], None, None)] if NONE in self.methods else []
        trained = (method for method in self.methods if method != NONE)
        for method, rank, steps in product(trained, self.ranks, self.step_counts):
            label = f"{LABELS[method]}, {steps} steps, rank {rank}"
            found.append(Variant(f"{method}-{steps}-r{rank}", method, label, steps, rank))
        return found

    def training_of(self, method: str, rank: int, person: PlannedPerson, steps: int) -> PersonalizeConfig:
        """The settings with which `metalora personalize` gives this person's LoRA."""
        own: dict[str, Any] = {"class_name": person.class_name, "seed": person.seed}
        if method in self.learning_rates:
            own["learning_rate"] = self.learning_rates[method]
        return PersonalizeConfig(**{**self.training, **own}, method=method, rank=rank, steps=steps)

    def crop_config(self) -> CropConfig:
        """Of every training."""
        return CropConfig(**self.crops)

    def sampling_config(self) -> GenerateConfig:
        """Of every image."""
        return GenerateConfig(**self.sampling)

    def prompts_of(self, person: PlannedPerson) -> list[PlannedPrompt]:
        """What this person is asked for."""
        return [prompt for prompt in self.prompts if prompt.asked_of(person)]

    def sha256(self) -> str:
        """Of everything in it."""
        return files.digest(json.dumps(asdict(self), sort_keys=True).encode())


class Layout:
    """Where a run keeps what: every file by the variant and the person it belongs to."""

    def __init__(self, run: Path):
        self.run = run

    @property
    def results(self) -> Path:
        """What was measured: the same bytes from the same plan."""
        return self.run / "results.json"

    @property
    def facts(self) -> Path:
        """When, how long and on what: everything that may differ from run to run."""
        return self.run / "run.json"

    def lora(self, variant: Variant, person: PlannedPerson) -> Path:
        """A finished LoRA."""
        return self.run / "loras" / variant.id / f"{person.identity}.safetensors"

    def state(self, method: str, rank: int, group: int) -> Path:
        """The training of a group, when it was stopped."""
        return self.run / "states" / f"{method}-r{rank}-group-{group}.safetensors"

    def image(self, variant: Variant, person: PlannedPerson, prompt: PlannedPrompt, seed: int) -> Path:
        """An image. Without a LoRA it is the same for everyone of a class, and is made once."""
        name = f"{prompt.id}-{seed}.png"
        if variant.id.startswith(EXTERNAL + "-"):
            return self.run / EXTERNAL / variant.method / person.identity / name
        whose = person.class_name if variant.method == NONE else person.identity
        return self.run / "images" / variant.id / whose / name

    def scores(self, variant: Variant, person: PlannedPerson) -> Path:
        """The scores of a person's images."""
        return self.run / "scores" / variant.id / f"{person.identity}.json"

    def relative(self, path: Path) -> str:
        """As results.json names it."""
        return path.relative_to(self.run).as_posix()

    def external_variants(self) -> list[Variant]:
        """A row for each method whose images were brought: the sub-folders of `external`."""
        folder = self.run / EXTERNAL
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        return [Variant(f"{EXTERNAL}-{name}", name, name, None, None) for name in names]


def planned_people(manifest: Manifest, config: BenchmarkConfig, seed: int) -> list[PlannedPerson]:
    """The people of the asked parts; those of one class are put together, in the manifest's order."""
    chosen = [person for person in manifest.people if person.part in config.parts]
    chosen = chosen[: config.people or None]
    if not chosen:
        raise UserError(f"{manifest.path} has nobody in {' or '.join(config.parts)}.")
    seen: dict[str, int] = {}
    groups: dict[tuple[str, int], int] = {}
    planned = []
    for person in chosen:
        index = seen[person.class_name] = seen.get(person.class_name, -1) + 1
        group = groups.setdefault((person.class_name, index // config.together), len(groups))
        own_seed = generator_of(seed, "person", person.name).initial_seed()
        reference = reference_of(person.name)
        planned.append(PlannedPerson(person.name, person.class_name, person.part, reference, own_seed, group))
    return planned


def planned_prompts(
    prompts: list[BenchmarkPrompt], config: BenchmarkConfig, people: list[PlannedPerson]
) -> list[PlannedPrompt]:
    """The prompts that somebody is asked for."""
    counts: dict[tuple[str, str | None, str | None], int] = {}
    planned = []
    for prompt in prompts:
        classes = sorted({p.class_name for p in people if prompt.asked_of(p.class_name, p.part)})
        kind = (prompt.part, prompt.class_name, prompt.group)
        counts[kind] = counts.get(kind, 0) + 1
        if classes and not (config.prompts_each and counts[kind] > config.prompts_each):
            filled = {class_name: prompt.filled(class_name) for class_name in classes}
            noise = {str(seed): generator_of("image", prompt.id, seed).initial_seed() for seed in config.seeds}
            planned.append(PlannedPrompt(**vars(prompt), filled=filled, noise_seeds=noise))
    alone = [p.identity for p in people if not any(prompt.asked_of(p) for prompt in planned)]
    if alone:
        raise UserError(
            f"The prompts ask nothing of {len(alone)} people, such as {alone[0]}: see their class and part."
        )
    return planned


def filled_texts(prompts: list[PlannedPrompt]) -> list[str]:
    """Every text that is asked for, each once."""
    return list(dict.fromkeys(text for prompt in prompts for text in prompt.filled.values()))


def identity_of(backbone: Backbone) -> dict[str, str]:
    """What must not change between plan and run."""
    return {"name": backbone.name, "fingerprint": backbone.fingerprint("transformer")}


def speed_of(backbone: Backbone) -> dict[str, Any]:
    """The fields of `Speed` that are not the default's. Results depend on them: a little, or with 8 bits more."""
    if not isinstance(backbone, PipelineBackbone):
        return {}
    default = asdict(AS_IT_IS)
    return {name: value for name, value in asdict(backbone.speed).items() if value != default[name]}


def reference_of(identity: str) -> str:
    """Where a run keeps the photo that is trained on: its pixels alone, without what a camera writes beside them."""
    return f"references/{identity}.png"

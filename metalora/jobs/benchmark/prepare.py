"""Making the plan of a benchmark: every input is read and checked before anything is trained."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...backbones.protocol import Backbone
from ...config import METHODS, CropConfig, GenerateConfig, PersonalizeConfig, Phase, UserError
from ...config_benchmark import BenchmarkConfig
from ...measure import load_faces
from ...measure.clip import load_clip
from ...store import files
from ...store.images import read_photo
from ...store.manifest import read_manifest
from ...store.pictures import save_image
from ...store.prompts import read_prompts, without
from .. import Job
from ..evaluate.whole import truncation
from ..training_files import RANDOM, read_meta_down, shipped_meta_down, untrained_meta_down
from .plan import (
    EXTERNAL,
    FORMAT,
    Plan,
    PlannedPerson,
    filled_texts,
    identity_of,
    planned_people,
    planned_prompts,
    speed_of,
)
from .plan_file import portable, write_plan

RANDOM_META_DOWN = "meta-downs/random.safetensors"
ANY_CLASS = ""  # the Meta-Down that is named without a class
DECIDED_BY_THE_PLAN = ("method", "steps", "rank", "class_name", "seed", "images_per_prompt")


@dataclass(frozen=True)
class Inputs:
    """What a benchmark is made of, as the user names it."""

    manifest: Path
    prompts: Path
    meta_downs: Mapping[str, str]  # class (or ANY_CLASS) -> file, or RANDOM
    backbone_flags: Mapping[str, str]  # how `run` finds the base again
    faces: str
    clip: str | None  # None: left out
    learning_rates: Mapping[str, float] = field(default_factory=dict)  # by method, of those that have their own
    drawn_with_flags: Mapping[str, str] = field(default_factory=dict)  # and the base that makes the images, if another


def mini_benchmark() -> Path:
    """The benchmark that ships."""
    return Path(__file__).parents[2] / "data" / "mini_benchmark"


def meta_phd_prompts() -> Path:
    """The paper's prompts."""
    return Path(__file__).parents[2] / "data" / "meta_phd" / "prompts.json"


def make_plan(
    run: Path,
    backbone: Backbone,
    inputs: Inputs,
    config: BenchmarkConfig,
    training: PersonalizeConfig,
    crops: CropConfig,
    sampling: GenerateConfig,
    draws: Backbone | None = None,
) -> Job[Plan]:
    """Check every input, write `plan.json`, the references and the layout for images from elsewhere."""
    files.check_writable(run / "plan.json")
    yield Phase(f"checking the photos of {inputs.manifest}")
    manifest = read_manifest(inputs.manifest)
    prompts = read_prompts(inputs.prompts)
    people = planned_people(manifest, config, training.seed)
    planned = planned_prompts(without(prompts.prompts, config.leave_out), config, people)
    ranks = config.ranks or (training.rank,)
    clip = None if inputs.clip is None else load_clip(inputs.clip)
    if clip is None:
        yield Phase("without a CLIP: CLIP-T, CLIP-I and what images show are left out")
    elif cut := truncation(clip, filled_texts(planned)):
        yield Phase(cut)
    yield Phase(f"checking the base {backbone.name}")
    if draws is not None and draws.name != backbone.name:
        raise UserError(
            f"--draw-with is a {draws.name}, and LoRAs of {backbone.name} do not fit it. Name a base of the same "
            "architecture, such as the one that was distilled from it."
        )
    plan = Plan(
        format=FORMAT,
        name=inputs.manifest.absolute().parent.name,
        manifest=portable(str(inputs.manifest), run),
        manifest_sha256=manifest.sha256,
        prompts_file=portable(str(inputs.prompts), run),
        prompts_sha256=prompts.sha256,
        methods=list(config.methods),
        step_counts=sorted(config.step_counts or (training.steps,)),
        ranks=sorted(ranks),
        seeds=list(config.seeds),
        images_at_once=config.images_at_once,
        threads=config.threads,
        training=own_options(training),
        crops=own_options(crops),
        sampling=own_options(sampling),
        meta_downs=meta_downs_of(run, backbone, inputs, config, training, people, max(ranks)),
        backbone=identity_of(backbone),
        backbone_flags=dict(inputs.backbone_flags),
        faces={"name": portable(inputs.faces, run), "sha256": load_faces(inputs.faces).digest},
        clip={"given": portable(inputs.clip, run), "sha256": clip.digest} if inputs.clip and clip else None,
        people=people,
        prompts=planned,
        alternatives=prompts.alternatives if clip else {},
        gallery=[person.name for person in manifest.people if person.held_out],
        speed=speed_of(backbone),
        learning_rates=dict(inputs.learning_rates),
        drawn_with=identity_of(draws) if draws else {},
        drawn_with_flags=dict(inputs.drawn_with_flags),
    )
    check_trainings(plan)
    write_plan(run, plan)
    references = {person.name: person.reference.path for person in manifest.people}
    for person in people:
        save_image(read_photo(references[person.identity]), run / person.reference)
    files.write_bytes(run / EXTERNAL / "wanted.jsonl", wanted_images(plan))
    return plan


def own_options(config: PersonalizeConfig | CropConfig | GenerateConfig) -> dict[str, Any]:
    """Without those that variants, people and prompts decide."""
    return {name: value for name, value in asdict(config).items() if name not in DECIDED_BY_THE_PLAN}


def check_trainings(plan: Plan) -> None:
    """Find out now which settings do not go together, such as a rank above the Meta-Down's."""
    for method in set(plan.methods) & set(METHODS):
        for rank in plan.ranks:
            config = plan.training_of(method, rank, plan.people[0], max(plan.step_counts))
            for name in ("optimizer", "lr_scheduler", "lr_warmup_steps", "lora_every"):
                if getattr(config, name) != getattr(PersonalizeConfig, name):
                    raise UserError(
                        f"{name} is {getattr(config, name)!r}, but a benchmark trains several people at once and takes "
                        f"several step counts from one training: leave it at {getattr(PersonalizeConfig, name)!r}."
                    )


def meta_downs_of(
    run: Path,
    backbone: Backbone,
    inputs: Inputs,
    config: BenchmarkConfig,
    training: PersonalizeConfig,
    people: list[PlannedPerson],
    rank: int,
) -> dict[str, dict[str, str]]:
    """Each class's Meta-Down, checked against the base; the random control is drawn once, for everybody."""
    if "meta-lora" not in config.methods:
        return {}
    classes = sorted({person.class_name for person in people})
    if unused := sorted(set(inputs.meta_downs) - {*classes, ANY_CLASS}):
        raise UserError(f"--meta-down names {', '.join(unused)}, but the people are {', '.join(classes)}.")
    sites = backbone.sites(training.sites)
    found = {}
    for class_name in classes:
        given = inputs.meta_downs.get(class_name) or inputs.meta_downs.get(ANY_CLASS)
        if given is None and (shipped := shipped_meta_down(backbone.name, class_name)):
            given = str(shipped)
        if given is None:
            raise UserError(
                f"The method meta-lora needs a Meta-Down for the class {class_name}: --meta-down {class_name}=FILE. "
                "--meta-down random is the untrained control; --methods none lora does without."
            )
        if given == RANDOM:
            downs = untrained_meta_down(sites, training, rank)
            tensors = {f"{name}.down": down for name, down in downs.items()}
            files.write(run / RANDOM_META_DOWN, tensors, "meta-down", {"base": backbone.name})
            given = str(run / RANDOM_META_DOWN)
        _, origin = read_meta_down(Path(given), sites, backbone.name, rank)
        found[class_name] = {"path": portable(given, run), "sha256": origin["meta_down"]}
    return found


def wanted_images(plan: Plan) -> bytes:
    """A line for each image that a method from elsewhere should bring: where to put it, and what it shows."""
    lines = []
    for person in plan.people:
        for prompt in plan.prompts_of(person):
            for seed in plan.seeds:
                record = {
                    "path": f"{EXTERNAL}/METHOD/{person.identity}/{prompt.id}-{seed}.png",
                    "reference": person.reference,
                    "prompt": prompt.filled[person.class_name],
                    "seed": prompt.noise_seeds[str(seed)],
                    "width": plan.sampling["width"],
                    "height": plan.sampling["height"],
                }
                lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines).encode()

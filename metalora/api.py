"""What the commands do, as functions: photos in, files out, and what was found as plain values.

Every setting of a command is a keyword here, called as in a settings file: `metalora personalize --help-all` says what
each is for. What is not given comes from the preset of the base model and the method. The first call loads torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .config import CropConfig, GenerateConfig, PersonalizeConfig, Phase, SpeedConfig, Step, UserError
from .config_meta_train import meta_train_config
from .config_meta_train import preset_of as meta_preset_of
from .settings import (
    Call,
    CropSettings,
    EvaluateSettings,
    File,
    GenerateSettings,
    MetaTrainSettings,
    PersonalizeSettings,
    config_of,
    settings_text,
    takes,
)

if TYPE_CHECKING:
    from .jobs import Job
    from .jobs.crops import CropSheet
    from .jobs.evaluate.images import ImageReport
    from .jobs.generate import Image
    from .jobs.meta_train import MetaTrained
    from .jobs.personalize import Personalized

Result = TypeVar("Result")


@takes(CropSettings)
def crops(photo: File, given: dict[str, Any]) -> "CropSheet":
    """Write the crops of a photo as `personalize` would learn from them, and `sheet.png`, a page with all of them.

    >>> made = crops("ada.jpg", out="crops", learn_from="crops", resolution=64, progress=quiet)
    >>> len(made.planned.crops), made.sheet.name
    (21, 'sheet.png')
    """
    from .jobs.crops import write_crops

    own = CropSettings(**given)
    out = Path(own.out or f"{Path(photo).stem}-crops")
    config = config_of(CropConfig, given, own.backbone)
    made = shown(write_crops(Path(photo), out, config, embedder=own.faces), own)
    keep(Path(f"{out}.toml"), "crops", {"photo": Path(photo), **given, **asdict(config)})
    return made


@takes(PersonalizeSettings)
def personalize(photo: File | Sequence[File], given: dict[str, Any]) -> "Personalized":
    """Learn one person from a photo, or several; write an ordinary LoRA, its adapter, its loss curve and settings.

    A call that was stopped goes on from where it was when it is made again.

    >>> made = personalize("ada.jpg", class_name="woman", steps=2, progress=quiet)
    >>> sorted(path.name for path in made.lora.parent.glob("ada.*"))
    ['ada.adapter.safetensors', 'ada.jpg', 'ada.loss.png', 'ada.safetensors', 'ada.toml']
    >>> personalize("ada.jpg", stepz=2)
    Traceback (most recent call last):
    metalora.config.UserError: metalora.personalize has no setting called stepz. Did you mean steps?
    """
    from .backbones.pipeline import how_it_runs, open_backbone
    from .jobs.personalize import personalize_photos
    from .jobs.training_files import RANDOM, shipped_meta_down
    from .store.cache import Cache, default_folder

    own = PersonalizeSettings(**given)
    photos = [Path(one) for one in ([photo] if isinstance(photo, str | Path) else photo)]
    if not photos:
        raise UserError("No photo was given.")
    backbone = open_backbone(own, own)
    if "method" not in given:
        known = own.meta_down or shipped_meta_down(backbone.name, own.class_name)
        given["method"] = "meta-lora" if known else "lora"
        if not known:
            say("no Meta-Down is known for this base and class: a plain LoRA is trained (--method lora)", own)
    config, crop_config = (
        config_of(PersonalizeConfig, given, own.defaults_of),
        config_of(CropConfig, given, own.defaults_of),
    )
    if fits_itself(own.fit, own):
        from .jobs.fitting import fit_personalization

        say(fit_personalization(backbone, config, crop_config, own.fit or 0), own)
    say(how_it_runs(backbone), own)
    meta_down = None if own.meta_down is None else str(own.meta_down)
    if meta_down not in (None, RANDOM):
        meta_down = str(Path(meta_down).absolute())  # as the settings keep it
    out = Path(own.out or f"{photos[0].stem}.safetensors")
    made = shown(
        personalize_photos(
            backbone,
            photos,
            out,
            config,
            crop_config,
            meta_down=meta_down,
            cache=Cache(Path(own.cache or default_folder())),
            embedder=own.faces,
            key_format=own.key_format,
            overwrite=own.overwrite,
        ),
        own,
    )
    settings = {"photo": photos, **given, "meta_down": meta_down, "out": out, **asdict(config), **asdict(crop_config)}
    keep(out.with_suffix(".toml"), "personalize", settings)
    return made


@takes(GenerateSettings)
def generate(prompt: str | Sequence[str], given: dict[str, Any]) -> "list[Image]":
    """Make images of prompts, with a LoRA, without, or both; those that a stopped call has made are kept.

    >>> size = {"width": 64, "height": 64, "sampling_steps": 1}
    >>> made = generate("a photo of a woman", lora="ada.safetensors", compare=True, progress=quiet, **size)
    >>> sorted(image.path.name for image in made)
    ['a-photo-of-a-woman-0-base.png', 'a-photo-of-a-woman-0.png']
    """
    from .backbones.pipeline import how_it_runs, open_backbone
    from .jobs.generate import generate_images
    from .store.cache import Cache, default_folder

    own = GenerateSettings(**given)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    backbone = open_backbone(own, own)
    config = config_of(GenerateConfig, given, own.defaults_of)
    if fits_itself(own.fit, own):
        from .jobs.fitting import fit_images

        say(fit_images(backbone, config, own.fit or 0), own)
    say(how_it_runs(backbone), own)
    made = shown(
        generate_images(
            backbone,
            prompts,
            Path(own.out),
            config,
            lora=None if own.lora is None else Path(own.lora),
            compare=own.compare,
            cache=Cache(Path(own.cache or default_folder())),
            overwrite=own.overwrite,
        ),
        own,
    )
    keep(Path(f"{own.out}.toml"), "generate", {"prompt": prompts, **given, **asdict(config)})
    return made


@takes(EvaluateSettings)
def evaluate(images: File, given: dict[str, Any]) -> "ImageReport":
    """Score how like a person generated images are (R-FaceSim), against photos that were not trained on.

    >>> report = evaluate("images", photos="unseen", reference="ada.jpg", progress=quiet)
    >>> sorted(report.r_facesim), report.images
    (['as zero', 'left out'], 1)
    """
    from .jobs.evaluate.images import evaluate_images
    from .store.files import check_writable, write_json

    own = EvaluateSettings(**given)
    if own.out is not None:
        check_writable(Path(own.out))
    report = shown(
        evaluate_images(
            Path(images),
            Path(own.photos),
            Path(own.reference),
            own.faces,
            clip=own.clip,
            prompts=None if own.prompts is None else Path(own.prompts),
            turn=own.turn,
            as_they_are=own.photos_as_they_are,
        ),
        own,
    )
    if own.out is not None:
        write_json(Path(own.out), report)
        keep(Path(own.out).with_suffix(".toml"), "evaluate images", {"images": Path(images), **given})
    return report


@takes(MetaTrainSettings)
def meta_train(people: File, given: dict[str, Any]) -> "MetaTrained":
    """Train a Meta-Down on photos of many people (stage 1), once for a base model; alone, or as one of torchrun's.

    >>> few = {"steps": 2, "batch": 2, "validation_people": 0, "resolution": 64, "backbone": "tiny"}
    >>> made = meta_train("people", out="people.safetensors", class_name="woman", progress=quiet, **few)
    >>> made.meta_down.name, sorted(path.name for path in made.folder.glob("*.toml"))
    ('people.safetensors', ['settings.toml'])
    """
    from .backbones.pipeline import how_it_runs, open_backbone
    from .jobs.meta_train import meta_train_people
    from .jobs.meta_train.memory import check_memory
    from .method.world import device_of_process, joined_processes, process_index
    from .store.cache import Cache, default_folder
    from .store.identities import skipped_of

    own = MetaTrainSettings(**given)
    preset = own.preset or meta_preset_of(own.defaults_of, given.get("objective"))
    config = meta_train_config(preset, given)
    backbone = open_backbone(replace(own, device=device_of_process(own.device)), own)
    with joined_processes(config.batch, backbone.device) as world:
        check_memory(backbone, config, world.size)
        if process_index() > 0:
            own = replace(own, progress=quiet)
        say(how_it_runs(backbone), own)
        if beside := skipped_of(Path(people)):
            say(beside, own)
        job = meta_train_people(
            backbone,
            Path(people),
            Path(own.out),
            config,
            cache=Cache(Path(own.cache or default_folder())),
            world=world,
            tensorboard=own.tensorboard,
            overwrite=own.overwrite,
        )
        made = shown(job, own)
    if process_index() == 0:
        keep(made.folder / "settings.toml", "meta-train", {"people": Path(people), **given, **asdict(config)})
    return made


def fits_itself(fit: float | None, how: SpeedConfig) -> bool:
    """Whether --fit chooses how the base is run."""
    if fit is not None and (how.eight_bit or how.four_bit or how.swap_blocks):
        raise UserError("--fit chooses between --eight-bit, --four-bit and --swap-blocks itself: leave them out.")
    return fit is not None


def quiet(progress: Phase | Step) -> None:
    """As `progress`: nothing is shown."""


def say(text: str, own: Call) -> None:
    """Show a line as a job would."""
    shown((Phase(one) for one in [text]), own)


def keep(path: Path, command: str, settings: dict[str, Any]) -> None:
    """Write a run's settings, as --config reads them."""
    from .store.files import write_bytes

    settings = {name: value for name, value in settings.items() if name != "progress"}
    if (backbone := settings.get("backbone")) and Path(backbone).is_dir():
        settings["backbone"] = Path(backbone)  # is written in full
    write_bytes(path, settings_text(f"metalora {command}", settings).encode())


def shown(job: "Job[Result]", own: Call) -> Result:
    """Run a job to its end, with its progress shown as was asked; its result."""
    from .jobs import Console, run

    return run(job, own.progress or Console())

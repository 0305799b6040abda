"""What each function and command takes: its settings, from which its signature, its flags and its files are made."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from .config import (
    BaseConfig,
    CropConfig,
    GenerateConfig,
    PersonalizeConfig,
    Phase,
    SpeedConfig,
    Step,
    UserError,
    check_options,
    option,
)
from .config_meta_train import META_PRESETS, MetaTrainConfig
from .settings import checked

File: TypeAlias = Path | str
Show: TypeAlias = Callable[[Phase | Step], None]
P = ParamSpec("P")
First = TypeVar("First")
Result = TypeVar("Result")

FACES = "who finds and embeds faces: sface, facenet, facenet:FILE with its weights, or arcface"
DINO = "facebook/dino-vits16"
KEY_FORMATS = ("diffusers", "bfl", "kohya")


@dataclass(frozen=True, kw_only=True)
class Call:
    """What every function takes."""

    progress: Show | None = None  # is called with each Phase and Step; None: lines and a bar on standard error

    def __post_init__(self) -> None:
        check_options(self)  # what does not go together is found in the config, with its presets


@dataclass(frozen=True, kw_only=True)
class CropSettings(Call, CropConfig):
    """Of `crops`."""

    out: File | None = option(None, "folder for the crops (default: <photo>-crops)", common=True)
    faces: str = option("sface", FACES, common=True)
    backbone: str = option("miniature", "whose defaults to use", common=True)


@dataclass(frozen=True, kw_only=True)
class PersonalizeSettings(Call, PersonalizeConfig, CropConfig, BaseConfig, SpeedConfig):
    """Of `personalize`."""

    out: File | None = option(None, "the LoRA file (default: <photo>.safetensors)", common=True)
    meta_down: File | None = option(
        None,
        "Meta-Down file of the class (default: the shipped one, if there is one), or 'random' (the control)",
        common=True,
    )
    key_format: str = option("diffusers", "key names; diffusers opens in diffusers and in ComfyUI", choices=KEY_FORMATS)
    overwrite: bool = option(False, "replace what exists", common=True)
    faces: str = option("sface", FACES)
    fit: float | None = option(
        None, "choose weights, checkpoints and swapped blocks for a card of so many GB, or for what is free", bare=0.0
    )


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(Call, GenerateConfig, BaseConfig, SpeedConfig):
    """Of `generate`."""

    lora: File | None = option(None, "a LoRA of any maker and key format", common=True)
    compare: bool = option(False, "make each image without the LoRA too", common=True)
    out: File = option("images", "folder for the images", common=True)
    overwrite: bool = option(False, "replace what exists", common=True)
    fit: float | None = option(
        None, "choose weights and swapped blocks for a card of so many GB, or for what is free", bare=0.0
    )


@dataclass(frozen=True, kw_only=True)
class LookSettings(Call):
    """How photos that are scored are looked at."""

    faces: str = option("sface", FACES, common=True)
    turn: str = option(
        "refuse",
        "photos that are turned, by their faces: refuse them, turn them (auto) or keep them",
        choices=("refuse", "auto", "keep"),
        common=True,
    )
    photos_as_they_are: bool = option(
        False, "go on with photos that show no face, several, another person or the same picture twice", common=True
    )
    out: File | None = option(None, "write all numbers to this JSON file", common=True)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(LookSettings):
    """Of `evaluate`."""

    photos: File = option(
        MISSING, "folder of photos NOT trained on; of several people, one sub-folder each", common=True
    )
    reference: File = option(MISSING, "the photo trained on, or folders", common=True)
    clip: str | None = option(
        None, "also CLIP-T and CLIP-I: miniature, openai, a folder or file (default: neither)", common=True
    )
    dino: str | None = option(
        None, f"also compare with the reference by DINO: a folder or hub name; bare: {DINO}", bare=DINO, common=True
    )
    prompts: File | None = option(
        None,
        "what the images show: a CSV image,prompt, or a plan's external/wanted.jsonl (default: as our PNGs say)",
        common=True,
    )


@dataclass(frozen=True, kw_only=True)
class MetaTrainSettings(Call, MetaTrainConfig, BaseConfig, SpeedConfig):
    """Of `meta_train`."""

    out: File = option(MISSING, "the Meta-Down file to write", common=True)
    preset: str | None = option(
        None, "settings to start from (default: by base model)", choices=tuple(META_PRESETS), common=True
    )
    tensorboard: bool = option(False, "write TensorBoard's logs too")
    overwrite: bool = option(False, "replace what exists", common=True)


def takes(
    kind: Callable[P, object],
) -> Callable[[Callable[[First, dict[str, Any]], Result]], Callable[Concatenate[First, P], Result]]:
    """Make f(first, given) into a function whose keywords are the fields of `kind`, for type checkers and help()."""

    def wrap(function: Callable[[First, dict[str, Any]], Result]) -> Callable[Concatenate[First, P], Result]:
        assert isinstance(kind, type)
        name = f"metalora.{function.__name__}"
        needed = [one.name for one in fields(kind) if one.default is MISSING]

        @functools.wraps(function)
        def call(first: First, *positional: P.args, **settings: P.kwargs) -> Result:
            if positional:
                raise TypeError(f"{name} takes its settings by name")
            given = checked(kind, settings, name)
            if missing := [one for one in needed if given.get(one) is None]:
                raise UserError(f"{name} needs {' and '.join(missing)}.")
            return function(first, given)

        first, *_ = inspect.signature(function).parameters.values()
        signature = inspect.Signature([first, *inspect.signature(kind).parameters.values()])
        call.__signature__ = signature  # type: ignore[attr-defined]
        del call.__wrapped__  # whose signature documentation tools would show instead
        return call

    return wrap

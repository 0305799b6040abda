"""Where settings come from: keywords or flags, over a file, over the presets of the base and method, over defaults.

Each function and command has a class of its settings, from which its signature, its flags and its files are made.
"""

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar, get_args, get_origin

from .backbones.bases import METHOD_PRESETS, PRESETS
from .config import (
    METHODS,
    BaseConfig,
    CropConfig,
    GenerateConfig,
    PersonalizeConfig,
    Phase,
    SpeedConfig,
    Step,
    UserError,
    check_options,
    flag_of,
    is_text,
    option,
)
from .config_meta_train import META_PRESETS, MetaTrainConfig

Config = TypeVar("Config")


def method_preset(backbone: str, method: str) -> dict[str, int | float | str]:
    """A method's own settings on a backbone, over the backbone's."""
    return METHOD_PRESETS.get(backbone, METHOD_PRESETS[""]).get(method, {})


def config_of(kind: type[Config], given: Mapping[str, Any], backbone: str = "") -> Config:
    """The config of those of the given settings that it has, over the method's preset, the backbone's, the defaults."""
    names = {option_field.name for option_field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    method = given.get("method", METHODS[0]) if "method" in names else ""
    settings = {**PRESETS.get(backbone, {}), **method_preset(backbone, method), **given}
    return kind(**{name: value for name, value in settings.items() if name in names})


def checked(
    kind: type, given: Mapping[str, Any], where: str, also: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The given settings, with Paths made of text and tuples of lists where the fields of `kind` want them.

    UserError for a name that neither `kind` (but for those `without`) nor `also` has, with the nearest there is.
    """
    options = (one for one in dataclasses.fields(kind) if "help" in one.metadata and one.name not in without)
    fields = {one.name: one.type for one in options}
    for name in given:
        if name not in fields and name not in also:
            near = get_close_matches(name, [*fields, *also], 1)
            meant = f"Did you mean {near[0]}?" if near else f"There are: {', '.join([*also, *fields])}."
            raise UserError(f"{where} has no setting called {name}. {meant}")
    return {name: _wanted(value, fields.get(name)) for name, value in given.items()}


def _wanted(value: Any, kind: Any) -> Any:
    if isinstance(value, list) and get_origin(kind) is tuple:
        return tuple(value)
    return Path(value) if isinstance(value, str) and Path in get_args(kind) else value


def read_settings(path: Path) -> dict[str, Any]:
    """What a settings file says; paths in it count from where the command is run, as on the command line."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    from .store.text import read_text

    text = read_text(path, "--config")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is not a TOML file: {error}.") from error


def settings_text(command: str, settings: Mapping[str, Any]) -> str:
    """A settings file that repeats a run: `name = value` lines, paths in full, and nothing that was not set."""
    lines = [f"# The settings of a run. To repeat it: {command} --config THIS_FILE, and where to write."]
    lines += [f"{name} = {_toml(value)}" for name, value in settings.items() if value is not None]
    return "\n".join([*lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Path):
        value = str(value.absolute())
    if isinstance(value, str):  # JSON's strings are TOML's but for one control character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


File: TypeAlias = Path | str
Show: TypeAlias = Callable[[Phase | Step], None]
P = ParamSpec("P")
First = TypeVar("First")
Result = TypeVar("Result")

FACES = "who finds and embeds faces: sface, facenet, facenet:FILE with its weights, or arcface"
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None and Path(self.out).suffix.lower() != ".json":  # a photo or table would be lost
            raise UserError(f"--out is {self.out}, but the numbers are written to a file that ends with .json.")


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
        missing: Any = MISSING
        wanted = (one for one in fields(kind) if one.default is MISSING)
        needed = {one.name: f"{one.name} ({flag_of(one)}: {one.metadata['help']})" for one in wanted}

        @functools.wraps(function)
        def call(first: First = missing, *positional: P.args, **settings: P.kwargs) -> Result:
            if positional:
                raise TypeError(f"{name} takes its settings by name")
            if first is missing:
                first = settings.pop(argument.name, missing)  # type: ignore[assignment]  # called by its name
            if first is missing:
                raise UserError(f"{name} needs {argument.name}.")
            check_first(first, str(argument.annotation), f"{name}: {argument.name}")
            given = checked(kind, settings, name, also=("progress",))
            if given.get("progress") is not None and not callable(given["progress"]):
                raise UserError(f"{name}: progress must be a function of a Phase or Step, got {given['progress']!r}.")
            if absent := [helped for one, helped in needed.items() if given.get(one) is None]:
                raise UserError(f"{name} needs {' and '.join(absent)}.")
            try:
                return function(first, given)
            except BrokenPipeError:
                raise
            except OSError as error:  # of a name or a disk that nobody has looked at before
                raise UserError(f"{error.filename or 'the system'}: {error.strerror or error}") from error

        argument, *_ = inspect.signature(function).parameters.values()
        signature = inspect.Signature([argument, *inspect.signature(kind).parameters.values()])
        call.__signature__ = signature  # type: ignore[attr-defined]
        del call.__wrapped__  # whose signature documentation tools would show instead
        return call

    return wrap


def check_first(given: Any, annotation: str, where: str) -> None:
    """A UserError unless what is called without a keyword is a path or a text, or several where it may be."""
    kinds, wanted = ((str, Path), "a path") if "Path" in annotation else ((str,), "a text")
    several = "Sequence" in annotation and isinstance(given, list | tuple)
    wrong = [one for one in (given if several else [given]) if not isinstance(one, kinds) or not is_text(one)]
    if wrong:
        raise UserError(
            f"{where} must be {wanted}{', or a list of them' * ('Sequence' in annotation)}, got {wrong[0]!r}."
        )

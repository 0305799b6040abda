"""Where settings come from: keywords or flags, over a file, over the presets of the base and method, over defaults."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from .config import METHODS, UserError

# A backbone's own defaults, where they differ from the paper's for FLUX.1-dev.
PRESETS: dict[str, dict[str, int | float | str | bool]] = {
    # After 150 steps the gain holds over two noises (docs/reproduction.md). Its photos are close portraits: no crops.
    "miniature": {
        "resolution": 128,
        "width": 128,
        "height": 128,
        "sampling_steps": 24,
        "guidance": 3.0,
        "steps": 150,
        "learning_rate": 2e-3,
        "rank": 16,
        "time_shift": 0.5,
        "background_weight": 0.1,
        "learn_from": "whole",
        "flips": False,
    },
    # The random test network: it learns nothing worth seeing, but every path runs in seconds.
    "tiny": {"resolution": 128, "width": 128, "height": 128, "sampling_steps": 8, "learning_rate": 3e-3, "steps": 60},
}


Config = TypeVar("Config")


# What a method wants that is not the default one, by backbone; "" is any other. A plain LoRA takes 625 steps (paper).
METHOD_PRESETS: dict[str, dict[str, dict[str, int | float | str]]] = {
    "": {"lora": {"steps": 625}},
    "miniature": {"lora": {"steps": 120, "learning_rate": 1e-3}},
    "tiny": {},
}


def method_preset(backbone: str, method: str) -> dict[str, int | float | str]:
    """A method's own settings on a backbone, over the backbone's."""
    return METHOD_PRESETS.get(backbone, METHOD_PRESETS[""]).get(method, {})


def with_preset(kind: type[Config], backbone: str, /, **given: Any) -> Config:
    """The config of what was given, over the method's preset, over the backbone's, over the defaults."""
    names = {option_field.name for option_field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    method = given.get("method", METHODS[0]) if "method" in names else ""
    presets = {**PRESETS.get(backbone, {}), **method_preset(backbone, method)}
    return kind(**{**{name: value for name, value in presets.items() if name in names}, **given})


def config_of(kind: type[Config], given: Mapping[str, Any], backbone: str = "") -> Config:
    """The config of those of the given settings that it has, over the presets, over the defaults."""
    names = {option_field.name for option_field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return with_preset(kind, backbone, **{name: value for name, value in given.items() if name in names})


def checked(kind: type, given: Mapping[str, Any], where: str, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """The given settings, with Paths made of text and tuples of lists where the fields of `kind` want them.

    UserError for a name that neither `kind` nor `also` has, with the nearest one that there is.
    """
    fields = {option_field.name: option_field.type for option_field in dataclasses.fields(kind)}
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
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"--config {path} cannot be read ({error.strerror}).") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UserError(f"--config {path} is not a TOML file: {error}.") from error


def settings_text(command: str, settings: Mapping[str, Any]) -> str:
    """A settings file that repeats a run: `name = value` lines, paths in full, and nothing that was not set."""
    lines = [f"# The settings of a run. To repeat it: {command} --config THIS_FILE, and where to write."]
    return (
        "\n".join(lines + [f"{name} = {_toml(value)}" for name, value in settings.items() if value is not None]) + "\n"
    )


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Path):
        value = str(value.absolute())
    if isinstance(value, str):  # JSON's strings are TOML's but for one control character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)

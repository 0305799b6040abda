"""Command-line flags made from the options of a config, and configs made from the flags that were given."""

import argparse
import dataclasses
import typing
from typing import Any

from .config import flag_of
from .presets import PRESETS, Config, with_preset

METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}


def add_options(parser: argparse.ArgumentParser, config: type, title: str, leave_out: tuple[str, ...] = ()) -> None:
    """One flag for each option, with its help, range and default."""
    group = parser.add_argument_group(title)
    for option_field in dataclasses.fields(config):
        if option_field.name in leave_out:
            continue
        options: dict[str, Any] = {"dest": option_field.name, "help": _help(option_field), "default": argparse.SUPPRESS}
        if option_field.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(option_field.type) is tuple:
            kind = typing.get_args(option_field.type)[0]
            options |= {"type": kind, "nargs": "+", "metavar": METAVARS[kind]}
        else:
            options |= {"type": option_field.type, "choices": option_field.metadata["choices"]}
            if not options["choices"]:
                options["metavar"] = METAVARS[option_field.type]
        group.add_argument(flag_of(option_field), **options)


def config_from(args: argparse.Namespace, config: type[Config], backbone: str) -> Config:
    """The config of the flags that were given, over the backbone's preset, over the defaults."""
    names = {option_field.name for option_field in dataclasses.fields(config)}
    given = {name: value for name, value in vars(args).items() if name in names}
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return with_preset(config, backbone, **{**given, **lists})


def flags_given(args: argparse.Namespace, config: type) -> list[str]:
    """The words on the command line that gave this config's options: for a next command that should have them too."""
    words = []
    for option_field in dataclasses.fields(config):
        value = getattr(args, option_field.name, None)
        flag = flag_of(option_field)
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return words


def _help(option_field: dataclasses.Field) -> str:
    low, high = option_field.metadata["low"], option_field.metadata["high"]
    text = option_field.metadata["help"].replace("%", "%%")
    presets = [
        f"{preset[option_field.name]} for {name}" for name, preset in PRESETS.items() if option_field.name in preset
    ]
    default = "; ".join([_default(option_field.default), *presets])
    limits = "" if low is None else f"; at least {low:g}" if high is None or high > 1e9 else f"; {low:g} to {high:g}"
    return f"{text} ({default}{limits})"


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return f"default: {' '.join(map(str, value))}" if value else "default: none"
    return "default: none" if value == "" else f"default {value!s}"

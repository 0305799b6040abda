"""Command-line flags made from the knobs of a config, and configs made from the flags that were given."""

import argparse
import dataclasses
import typing
from typing import Any

from .config import flag_of
from .presets import PRESETS, Config, with_preset

METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}


def add_knobs(parser: argparse.ArgumentParser, config: type, title: str, leave_out: tuple[str, ...] = ()) -> None:
    """One flag for each knob, with its help, range and default."""
    group = parser.add_argument_group(title)
    for knob_field in dataclasses.fields(config):
        if knob_field.name in leave_out:
            continue
        options: dict[str, Any] = {"dest": knob_field.name, "help": _help(knob_field), "default": argparse.SUPPRESS}
        if knob_field.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(knob_field.type) is tuple:
            kind = typing.get_args(knob_field.type)[0]
            options |= {"type": kind, "nargs": "+", "metavar": METAVARS[kind]}
        else:
            options |= {"type": knob_field.type, "choices": knob_field.metadata["choices"]}
            if not options["choices"]:
                options["metavar"] = METAVARS[knob_field.type]
        group.add_argument(flag_of(knob_field), **options)


def knobs_from(args: argparse.Namespace, config: type[Config], backbone: str) -> Config:
    """The config of the flags that were given, over the backbone's preset, over the defaults."""
    names = {knob_field.name for knob_field in dataclasses.fields(config)}
    given = {name: value for name, value in vars(args).items() if name in names}
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return with_preset(config, backbone, **{**given, **lists})


def flags_given(args: argparse.Namespace, config: type) -> list[str]:
    """The words on the command line that gave this config's knobs: for a next command that should have them too."""
    words = []
    for knob_field in dataclasses.fields(config):
        value = getattr(args, knob_field.name, None)
        flag = flag_of(knob_field)
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return words


def _help(knob_field: dataclasses.Field) -> str:
    low, high = knob_field.metadata["low"], knob_field.metadata["high"]
    text = knob_field.metadata["help"].replace("%", "%%")
    presets = [f"{preset[knob_field.name]} for {name}" for name, preset in PRESETS.items() if knob_field.name in preset]
    default = "; ".join([_default(knob_field.default), *presets])
    limits = "" if low is None else f"; at least {low:g}" if high is None or high > 1e9 else f"; {low:g} to {high:g}"
    return f"{text} ({default}{limits})"


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return f"default: {' '.join(map(str, value))}" if value else "default: none"
    return "default: none" if value == "" else f"default {value!s}"

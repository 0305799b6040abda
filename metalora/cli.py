"""The command `metalora`: which commands there are, flags made from settings and settings from flags, how one ends."""

import argparse
import dataclasses
import importlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from inspect import get_annotations
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_origin

from . import backbones
from .backbones.bases import PRESETS
from .config import BaseConfig, CropConfig, GenerateConfig, PersonalizeConfig, SpeedConfig, UserError, flag_of
from .config_benchmark import BenchmarkConfig
from .config_meta_train import MetaTrainConfig
from .settings import checked, read_settings

FAMILIES = {  # which file has a command; only that of the command that runs is imported
    "personal": ("crops", "personalize", "generate", "merge"),
    "meta_down": ("meta-train", "meta-down"),
    "evaluate": ("evaluate",),
    "benchmark": ("benchmark",),
    "machine": ("info", "doctor", "cache"),
    "demo": ("demo",),
}

DESCRIPTION = """\
One photo of a person -> a small LoRA of that person -> images of them in new places.

  metalora doctor                                      is everything there, and does it fit?
  metalora demo                                        the whole path on photos that come along
  metalora crops ada.jpg                               what would be learned from this photo
  metalora personalize ada.jpg --class woman ...       photo -> ada.safetensors
  metalora generate --lora ada.safetensors --prompt '...'
  metalora meta-train people --class woman ...         photos of many people -> a Meta-Down, once per class
  metalora evaluate images images ...                  how like the person are they?

Every command explains itself: metalora personalize --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, 1 after an error the user can mend, 2 for wrong usage, 128 + N after signal N (130: Ctrl-C).

    141 where the reader of the output has left, as `metalora info FILE | head -1` does.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal does not have is written as its number
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return run_command(arguments)
        finally:
            if sys.stdout is not None:  # closed by a shell's >&-
                sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # Python flushes both once more when it ends
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return 141


def entry() -> int:
    """`main` in a process of its own."""
    backbones.own_process = True
    return main()


def run_command(arguments: Sequence[str] | None) -> int:
    """The same without a care for who reads the output."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        args = make_parser(words[0] if words else None).parse_args(words)
        return args.action(args) or 0
    except UserError as error:
        print(f"metalora: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:  # of a name or a disk that nobody has looked at before
        print(f"metalora: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        signum = stop.args[0] if stop.args else signal.SIGINT
        lost = "" if stop.args else " at once: what was done since the last save is lost"
        print(f"stopped{lost}. Repeat the same command to go on: what it has saved is not done again.", file=sys.stderr)
        return 128 + signum


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The commands with their flags: all, or those of one command's family."""
    parser = Parser(prog="metalora", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"metalora {installed_version()}")
    commands = Commands(parser, "commands", "COMMAND")
    families = [family for family, names in FAMILIES.items() if command in names] or FAMILIES
    for family in families:
        importlib.import_module(f".commands.{family}", __package__).add_to(commands)
    return parser


def installed_version() -> str:
    """Of the installed package; a checkout also runs without being installed, as python -m metalora.cli."""
    try:
        return version("metalora")
    except PackageNotFoundError:
        return "(a checkout, not installed)"


WIDEST = 120  # columns of help
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "FILE"}
TITLES = {
    BaseConfig: "base model",
    SpeedConfig: "speed of the base",
    PersonalizeConfig: "training",
    MetaTrainConfig: "training (defaults: preset flux)",
    CropConfig: "crops",
    GenerateConfig: "sampling",
    BenchmarkConfig: "the comparison",
}
# What a command does with its flags; its exit status, None being 0.
Action: TypeAlias = Callable[[argparse.Namespace], int | None]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples, and a flag and its help on one line where there is room."""

    def __init__(self, prog: str):
        terminal = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else WIDEST
        super().__init__(prog, max_help_position=32, width=min(WIDEST, terminal))


class Parser(argparse.ArgumentParser):
    """A parser whose --help leaves out its `rare` flags; --help-all shows every one."""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=HelpFormatter, **settings)
        self.rare: list[argparse.Action] = []

    def format_help(self) -> str:
        """The short help."""
        texts = [(action, action.help) for action in self.rare]
        for action in self.rare:
            action.help = argparse.SUPPRESS
        try:
            return super().format_help()
        finally:
            for action, text in texts:
                action.help = text

    def format_all(self) -> str:
        """The help of every flag, in groups."""
        return super().format_help()


class ShowAll(argparse.Action):
    """--help-all."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        assert isinstance(parser, Parser)
        print(parser.format_all(), end="")
        parser.exit()


class Commands:
    """The commands of a parser, or the second words of one of its commands."""

    def __init__(self, parser: argparse.ArgumentParser, title: str, metavar: str):
        self._parsers = parser.add_subparsers(title=title, metavar=metavar, required=True, parser_class=Parser)

    def add(self, name: str, summary: str, description: str, action: Action) -> Parser:
        """A command; `description` holds examples, `action` runs it."""
        parser = self._parsers.add_parser(name, help=summary, description=description)
        parser.set_defaults(action=action)
        assert isinstance(parser, Parser)
        return parser

    def family(self, name: str, summary: str, description: str, title: str = "what") -> "Commands":
        """A command whose second word says what: `metalora evaluate pairs`."""
        return Commands(self._parsers.add_parser(name, help=summary, description=description), title, title.upper())


def add_settings(parser: Parser, kind: type, leave_out: tuple[str, ...] = ()) -> None:
    """The flags of settings, --config and --help-all. What has no flag is added before: the usage line names it."""
    positional = [str(action.metavar or action.dest) for action in parser._get_positional_actions()]
    parser.usage = " ".join(["%(prog)s", *positional, "[flags]"])
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings as a run writes them beside its result; flags win"
    )
    actions = add_options(parser, kind, leave_out)
    parser.rare += [action for action, one in actions if not one.metadata["common"]]
    if parser.rare:
        parser.add_argument("--help-all", nargs=0, action=ShowAll, help=f"show {len(parser.rare)} more flags, and exit")


def add_options(
    parser: argparse.ArgumentParser, kind: type, leave_out: tuple[str, ...] = ()
) -> list[tuple[argparse.Action, dataclasses.Field]]:
    """A flag for each setting, in a group for each class that declares some."""
    actions, done = [], set(leave_out)
    for owner in kind.__mro__[:-1]:
        declared = get_annotations(owner)
        own = [one for one in dataclasses.fields(kind) if one.name in declared and one.name not in done]
        own = [one for one in own if "help" in one.metadata]
        group = parser.add_argument_group(TITLES[owner]) if owner in TITLES and own else parser
        actions += [(add_flag(group, one), one) for one in own]
        done |= set(declared)
    return actions


def add_flag(group: argparse._ActionsContainer, option_field: dataclasses.Field) -> argparse.Action:
    """The flag of one setting, with its help, range and default; left out of the namespace where it is not given."""
    kind = _kind(option_field.type)
    how: dict[str, Any] = {"dest": option_field.name, "help": _help(option_field), "default": argparse.SUPPRESS}
    if kind is bool:
        return group.add_argument(flag_of(option_field), action=argparse.BooleanOptionalAction, **how)
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
        how["nargs"] = "+"
    if (bare := option_field.metadata["bare"]) is not None:
        how |= {"nargs": "?", "const": bare}
    choices = option_field.metadata["choices"]
    how |= {"type": kind, "choices": choices} | ({} if choices else {"metavar": METAVARS[kind]})
    return group.add_argument(flag_of(option_field), **how)


def settings_of(
    args: argparse.Namespace, kind: type, also: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The settings that were given: the flags, over the file of --config, which may not hold those `without`."""
    path = vars(args).get("config")
    file = checked(kind, read_settings(path), str(path), also, without) if path else {}
    names = {*(option_field.name for option_field in dataclasses.fields(kind)), *also}
    return file | checked(kind, {name: value for name, value in vars(args).items() if name in names}, "", also)


def flags_of(given: Mapping[str, Any], kind: type) -> list[str]:
    """The words of a command line that give these of the settings: for a next command that should have them too."""
    words = []
    for option_field in dataclasses.fields(kind):
        value, flag = given.get(option_field.name), flag_of(option_field)
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            words += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return words


def _kind(kind: Any) -> Any:
    """What a flag's text is made into: of several kinds a Path, or the first that is not None."""
    members = get_args(kind)
    if not members or get_origin(kind) is tuple:
        return kind
    return Path if Path in members else next(member for member in members if member is not type(None))


def _help(option_field: dataclasses.Field) -> str:
    low, high = option_field.metadata["low"], option_field.metadata["high"]
    text = option_field.metadata["help"].replace("%", "%%")
    presets = [
        f"{preset[option_field.name]} for {name}"
        for name, preset in PRESETS.items()
        if option_field.name in preset and name == "miniature"  # of the others, docs/bases.md has a table
    ]
    default = "; ".join([*_default(option_field.default), *presets])
    limits = "" if low is None else f"at least {low:g}" if high is None or high > 1e9 else f"{low:g} to {high:g}"
    said = "; ".join(part for part in (default, limits) if part)
    return f"{text} ({said})" if said else text


def _default(value: Any) -> list[str]:
    if value in (None, "", False, dataclasses.MISSING):
        return []
    if isinstance(value, tuple):
        return [f"default: {' '.join(map(str, value))}"] if value else []
    return [f"default {value!s}"]


if __name__ == "__main__":  # python -m metalora.cli: the commands import this file once more, and run in that one
    sys.exit(importlib.import_module(".cli", __package__).entry())

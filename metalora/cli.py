"""The command `metalora`: which commands there are, and how one ends."""

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from . import backbones
from .config import UserError
from .flags import Commands, Parser

FAMILIES = {  # which file has a command; only that of the command that runs is imported
    "personal": ("crops", "personalize", "generate", "merge"),
    "meta_train": ("meta-train",),
    "meta_down": ("meta-down",),
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


if __name__ == "__main__":
    sys.exit(entry())

"""Settings as nodes call them, in messages that the command line shares with them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..metalora.config import UserError

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OTHERWISE = {"--class": "class_name", "--faces": "embedder", "--out": "name"}  # than by their letters
PIP = ("--force-reinstall", "--no-deps")
COMMANDS = {"`metalora crops` draws the numbers on it": "the node shows the numbers on it"}


class MetaLoRA(UserError):
    """Shown by ComfyUI as the title of a message: a class's name, behind its module's unless that is `builtins`."""


MetaLoRA.__module__ = "builtins"


def in_widget_names(message: str, **otherwise: str) -> str:
    """ "--learning-rate" as "learning_rate"; `otherwise` are this node's own names, such as faces="finder"."""
    for command, what in COMMANDS.items():
        message = message.replace(command, what)
    own = {f"--{flag}": name for flag, name in otherwise.items()}
    return FLAG.sub(lambda found: own.get(found[0]) or widget_of(found[0]), message)


def widget_of(flag: str) -> str:
    """The widget that sets what a flag sets."""
    return flag if flag in PIP else OTHERWISE.get(flag, flag.removeprefix("--").replace("-", "_"))


@contextmanager
def told_in_widget_names(**otherwise: str) -> Iterator[None]:
    """A UserError from inside says which widgets to change."""
    try:
        yield
    except UserError as error:
        raise MetaLoRA(in_widget_names(str(error), **otherwise)) from error

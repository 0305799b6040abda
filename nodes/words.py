"""Settings as nodes call them, in messages that the command line shares with them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..metalora.config import UserError

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OTHERWISE = {"--class": "class_name", "--faces": "embedder", "--out": "name"}  # than by their letters
PIP = ("--force-reinstall", "--no-deps")
COMMAND = re.compile(r"`metalora (crops|merge|benchmark plan|benchmark run|benchmark report)[^`]*`")
NODES = {
    "crops": "Augment Face Crops",
    "merge": "Merge to Rank-1 LoRA",
    "benchmark plan": "Benchmark Prompts",
    "benchmark run": "Benchmark Runner",
    "benchmark report": "Benchmark Report",
}
NO_NODE = re.compile(r"[;.] `metalora (doctor|info)\b[^.;]*")  # advice that only the command line can follow


class MetaLoRA(UserError):
    """Shown by ComfyUI as the title of a message: a class's name, behind its module's unless that is `builtins`."""


MetaLoRA.__module__ = "builtins"


def in_widget_names(message: str, **otherwise: str) -> str:
    """ "--learning-rate" as "learning_rate"; `otherwise` are this node's own names, such as faces="finder"."""
    message = COMMAND.sub(lambda found: f"*{NODES[found[1]]}*", NO_NODE.sub("", message))
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

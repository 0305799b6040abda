"""Settings as nodes call them, in messages that the command line shares with them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..metalora.config import UserError

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OTHERWISE = {"--class": "class_name", "--faces": "embedder", "--out": "name"}  # than by their letters
PIP = ("--force-reinstall", "--no-deps")


def in_widget_names(message: str) -> str:
    """ "--learning-rate" as "learning_rate"."""
    return FLAG.sub(lambda found: widget_of(found[0]), message)


def widget_of(flag: str) -> str:
    """The widget that sets what a flag sets."""
    return flag if flag in PIP else OTHERWISE.get(flag, flag.removeprefix("--").replace("-", "_"))


@contextmanager
def told_in_widget_names() -> Iterator[None]:
    """A UserError from inside says which widgets to change."""
    try:
        yield
    except UserError as error:
        raise UserError(in_widget_names(str(error))) from error

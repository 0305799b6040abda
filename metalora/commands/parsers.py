"""How a family of commands adds its parsers: one style of help, one way to say what runs."""

import argparse
from collections.abc import Callable
from typing import TypeAlias

# What a command does with its flags; its exit status, None being 0.
Action: TypeAlias = Callable[[argparse.Namespace], int | None]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples, and a flag and its help on one line where there is room."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=120)


class Commands:
    """The commands of a parser, or the second words of one of its commands."""

    def __init__(self, parser: argparse.ArgumentParser, title: str, metavar: str):
        self._parsers = parser.add_subparsers(title=title, metavar=metavar, required=True)

    def add(self, name: str, summary: str, description: str, action: Action) -> argparse.ArgumentParser:
        """A command; `description` holds examples, `action` runs it."""
        parser = self._parsers.add_parser(name, help=summary, description=description, formatter_class=HelpFormatter)
        parser.set_defaults(action=action)
        return parser

    def family(self, name: str, summary: str, description: str, title: str = "what") -> "Commands":
        """A command whose second word says what: `metalora evaluate pairs`."""
        parser = self._parsers.add_parser(name, help=summary, description=description, formatter_class=HelpFormatter)
        return Commands(parser, title, title.upper())

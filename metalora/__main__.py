"""`python -m metalora`: the command where its script is not on the path."""

from .cli import entry

raise SystemExit(entry())

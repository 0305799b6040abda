"""The whole path on a portrait that comes along."""

import argparse
from pathlib import Path

from .base_model import add_backbone, backbone_of, cache_of, preset_of
from .parsers import Commands
from .running import driven

DEMO_HELP = """\
The whole path on a portrait that comes along: crops, Meta-LoRA, plain LoRA and plain LoRA on the crops, the finished
files, images with and without them, and one page with all of it. The miniature gets a rendered person, with photos that
nothing is trained on to compare with; other base models get NASA's photograph of Eileen Collins (public domain).
"""


def add_to(commands: Commands) -> None:
    """One command that needs no photo and no download."""
    parser = commands.add("demo", "the whole path on a portrait that comes along", DEMO_HELP, demo)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-result"), help="folder for the result (default: demo-result)"
    )
    add_backbone(parser)


def demo(args: argparse.Namespace) -> None:
    """The whole path on a portrait that comes along."""
    from ..jobs.demo import demonstrate
    from ..jobs.demonstration import summary

    made = driven(demonstrate(backbone_of(args), args.out, cache_of(args), preset_of(args)))
    print(summary(made))
    print(f"look:  {made.page}")

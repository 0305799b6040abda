"""The whole path on photos that come along."""

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from ..cli import Commands, add_settings, settings_of
from ..config import BaseConfig
from ..jobs import driven

DEMO_HELP = """\
The whole path on photos that come along: each person's one photo is learned into an ordinary LoRA file; images of the
same prompts and noise are made without and with it; one page shows them, with how like the person they are. The
miniature gets rendered people, with photos that nothing is trained on to compare with, and learns each of them as a
plain LoRA and as Meta-LoRA. Other base models get NASA's photograph of the astronaut Eileen Collins (public domain).
"""


def add_to(commands: Commands) -> None:
    """One command that needs no photo and no download."""
    parser = commands.add("demo", "the whole path on photos that come along", DEMO_HELP, demo)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-result"), help="folder for the result (default: demo-result)"
    )
    parser.add_argument("--people", type=int, metavar="N", help="rendered people to learn (default: 3; miniature only)")
    parser.add_argument("--no-open", action="store_true", help="do not open the page in a browser")
    add_settings(parser, BaseConfig)


def demo(args: argparse.Namespace) -> None:
    """The whole path on photos that come along."""
    from ..backbones.pipeline import open_backbone
    from ..jobs.demo import demonstrate
    from ..jobs.demo.page import summary
    from ..jobs.demo.people import demo_people
    from ..store.cache import Cache, default_folder

    base = BaseConfig(**settings_of(args, BaseConfig))
    people = demo_people(base.defaults_of, args.people)
    cache = Cache(Path(base.cache or default_folder()))
    made = driven(demonstrate(open_backbone(base), args.out, cache, base.defaults_of, people))
    print(summary(made))
    print(f"look:  {made.page}")
    if not args.no_open and is_watched():
        webbrowser.open(made.page.resolve().as_uri())


def is_watched() -> bool:
    """Whether somebody sits at a terminal and at a screen, and not an automatic build."""
    screen = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(screen) and sys.stdout.isatty() and not os.environ.get("CI")

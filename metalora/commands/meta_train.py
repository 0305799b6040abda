"""Stage 1: many people to one Meta-Down."""

import argparse
import os
from pathlib import Path
from shlex import quote

from .. import api
from ..cli import Commands, add_settings, flags_of, settings_of
from ..config import BaseConfig, UserError
from ..config_meta_train import MetaTrainConfig
from ..jobs import Console
from ..settings import MetaTrainSettings

HELP = """\
Meta-train a Meta-Down on photos of many people (stage 1): once for a base model, for everyone after.

across photos (the default): a small network makes heads from the face on one photo of a person, and another photo of
the same person judges them. Each person needs at least two photos with a face; any number of people.

  metalora meta-train people --class all --out people.safetensors
  metalora meta-train people --class all --out people.safetensors --backbone flux-dev --gradient-checkpointing

paper: the paper's Algorithm 1. Buckets of people get heads of their own, which are thrown away in the end.

  metalora meta-train people --objective paper --class woman --out woman.safetensors --backbone flux-dev

On several GPUs or machines:

  torchrun --nproc-per-node 8 --max-restarts 3 -m metalora.cli meta-train people ...

people/ada/1.jpg, people/ada/2.jpg, people/bob/1.jpg, ... with captions, if any, in people/ada/1.txt; or a JSONL file,
a line a photo: {"identity": "ada", "path": "ada/1.jpg", "class": "woman", "caption": "..."}, the last two optional.

Beside the result, the folder <out without its ending> holds checkpoints, steps.csv, validation.csv and progress.png.
Ctrl-C, or a crash, loses nothing or little: the same command goes on from the last checkpoint.
"""


def add_to(commands: Commands) -> None:
    """One command that makes what `personalize` stands on."""
    parser = commands.add("meta-train", "photos of many people -> Meta-Down (stage 1)", HELP, meta_train)
    parser.add_argument(
        "people",
        type=Path,
        nargs="?",
        default=argparse.SUPPRESS,
        help="a folder with one sub-folder a person, or a .jsonl manifest",
    )
    add_settings(parser, MetaTrainSettings)


def meta_train(args: argparse.Namespace) -> None:
    """Train a Meta-Down, in this process or as one of torchrun's."""
    given = settings_of(args, MetaTrainSettings, ("people",))
    if "people" not in given:
        raise UserError("No folder of people was given.")
    with Console().listening() as console:
        made = api.meta_train(given.pop("people"), progress=console, **given)
    if os.environ.get("RANK", "0") != "0":
        return
    if made.history["validated"]:
        print(outcome(made.history, made.config))
    print(f"wrote {made.meta_down}; look at {made.folder / 'progress.png'}")
    who = "person" if made.config.class_name == "all" else made.config.class_name  # captions say what one is
    words = ["--meta-down", str(made.meta_down), "--class", who, *flags_of(given, BaseConfig)]
    print(f"next:  metalora personalize photo.jpg {' '.join(map(quote, words))}")


def outcome(history: dict[str, list[float]], config: MetaTrainConfig) -> str:
    """What people who were held out gain, in one line."""
    if config.objective == "paper":
        first, last = (history["before"][at] - history["after"][at] for at in (0, -1))
        return (
            f"held-out people gain from {config.validation_steps} steps on one photo: {first:.4f} at the start, "
            f"{last:.4f} now"
        )
    own, another, none = (history[name][-1] for name in ("own_face", "another_face", "no_heads"))
    return (
        f"loss on unseen people's other photos: {own:.4f} with heads from their own face, {another:.4f} from "
        f"another's, {none:.4f} without"
    )

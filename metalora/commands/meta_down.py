"""Meta-Downs: stage 1, many people to one; one distilled of ordinary LoRAs; what is in one."""

import argparse
import os
from pathlib import Path
from shlex import quote

from .. import api
from ..cli import Commands, add_settings, flags_of, settings_of
from ..config import BaseConfig, UserError
from ..config_meta_train import MetaTrainConfig
from ..jobs import Console, driven
from ..settings import MetaTrainSettings

TRAIN_HELP = """\
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

Beside the result, people.run holds checkpoints, steps.csv, validation.csv and progress.png.
Ctrl-C, or a crash, loses nothing or little: the same command goes on from the last checkpoint.
"""

FAMILY_HELP = """\
Meta-Downs without meta-training.

  metalora meta-down inspect woman.safetensors
  metalora meta-down from-loras loras --class woman --out woman.safetensors --backbone flux-dev
"""

LORAS_HELP = """\
Distill ordinary LoRAs of people into a Meta-Down: at each layer the directions of the input that their updates share
most. The LoRAs may be of any maker, key_format and rank, and must be of the same base model; a file that cannot be read
is named and skipped. All are held in memory.
"""


def add_to(commands: Commands) -> None:
    """Train, look into, distill."""
    parser = commands.add("meta-train", "photos of many people -> Meta-Down (stage 1)", TRAIN_HELP, meta_train)
    parser.add_argument(
        "people",
        type=Path,
        nargs="?",
        default=argparse.SUPPRESS,
        help="a folder with one sub-folder a person, or a .jsonl manifest",
    )
    add_settings(parser, MetaTrainSettings)

    kinds = commands.family("meta-down", "look into or distill Meta-Downs", FAMILY_HELP)
    look = kinds.add("inspect", "what is in a Meta-Down?", "What is in a Meta-Down file, kind by kind.", inspect)
    look.add_argument("file", type=Path, help="a Meta-Down file")
    distill = kinds.add("from-loras", "distill ordinary LoRAs of people", LORAS_HELP, from_loras)
    distill.add_argument("folder", type=Path, help="a folder of .safetensors LoRAs")
    distill.add_argument("--meta-rank", type=int, default=16, metavar="N", help="r1, directions to keep (default 16)")
    distill.add_argument("--out", type=Path, required=True, help="the Meta-Down file to write")
    distill.add_argument("--class", dest="domain", default="person", help="the class it is for (default person)")
    distill.add_argument("--overwrite", action="store_true", help="replace what exists")
    add_settings(distill, BaseConfig)


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


def inspect(args: argparse.Namespace) -> None:
    """Say what a Meta-Down holds."""
    from ..jobs.info import describe, inspect_meta_down

    table = inspect_meta_down(args.file)  # first: it refuses other files
    print(describe(args.file))
    print(table)


def from_loras(args: argparse.Namespace) -> None:
    """Find what LoRAs share."""
    from ..backbones.pipeline import open_backbone
    from ..jobs.lora import meta_down_from_loras

    job = meta_down_from_loras(
        args.folder,
        args.out,
        open_backbone(BaseConfig(**settings_of(args, BaseConfig))),
        args.domain,
        args.meta_rank,
        overwrite=args.overwrite,
    )
    found = driven(job)
    print(f"distilled {len(found.taken)} LoRAs into {args.meta_rank} directions a layer, sites: {found.sites}")
    if found.left:
        print(f"skipped {len(found.left)} files, for the reasons above: {', '.join(found.left[:5])}")
    print(f"wrote {args.out}")
    base = flags_of(settings_of(args, BaseConfig), BaseConfig)
    words = ["--meta-down", str(args.out), "--class", args.domain, *base]
    print(f"next:  metalora personalize photo.jpg {' '.join(map(quote, words))}")

"""Meta-Down files: what one is, and how ordinary LoRAs make one without stage 1."""

import argparse
from pathlib import Path

from ..cli import Commands, add_settings, flags_of, settings_of
from ..config import BaseConfig
from ..jobs import driven

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
    """Look into, distill."""
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
    print(f"next:  metalora personalize photo.jpg {' '.join(words)}")

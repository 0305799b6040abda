"""What is here: files, and the machine with its packages and weights."""

import argparse
from pathlib import Path

from ..config import CropConfig, PersonalizeConfig
from ..flags import add_options, config_from
from .base_model import add_backbone, backbone_of, cache_of, preset_of
from .parsers import Commands

DOCTOR_HELP = """\
Check what is installed, which weights are found and where missing ones belong, and whether a personalization fits in
memory, before anything large is loaded. For a large base, also how `personalize --fit` would run it on several cards.

  metalora doctor --backbone flux-dev --resolution 512
"""


def add_to(commands: Commands) -> None:
    """Look before loading."""
    files = commands.add("info", "say what a file is", "Say what safetensors files are, ours or others'.", info)
    files.add_argument("files", type=Path, nargs="+", metavar="file", help="a .safetensors file")

    machine = commands.add("doctor", "check machine, packages, weights and memory", DOCTOR_HELP, doctor)
    add_options(machine, PersonalizeConfig, "the job to be checked: training")
    add_options(machine, CropConfig, "the job to be checked: crops")
    add_backbone(machine)


def info(args: argparse.Namespace) -> None:
    """Say what files are."""
    from ..jobs.info import describe

    for index, path in enumerate(args.files):
        print(("\n" if index else "") + describe(path))


def doctor(args: argparse.Namespace) -> int:
    """Look at the machine, the packages and the weights; say whether a job fits. 1 if something is in the way."""
    from ..jobs.doctor import cards, examine

    config, crop_config = (
        config_from(args, PersonalizeConfig, preset_of(args)),
        config_from(args, CropConfig, preset_of(args)),
    )
    backbone = backbone_of(args)
    findings = examine(backbone, config, crop_config, cache_of(args).folder)
    print("\n".join([*map(str, findings), *cards(backbone, config, crop_config)]))
    return 1 if any(finding.bad for finding in findings) else 0

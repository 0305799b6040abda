"""What is here: files, and the machine with its packages and weights."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..config import BaseConfig, CropConfig, PersonalizeConfig
from ..flags import Commands, add_settings, settings_of
from ..settings import config_of

DOCTOR_HELP = """\
Check what is installed, which weights are found and where missing ones belong, and whether a personalization fits in
memory, before anything large is loaded. For a large base, also how `personalize --fit` would run it on several cards.

  metalora doctor --backbone flux-dev --resolution 512
"""


@dataclass(frozen=True, kw_only=True)
class Examined(BaseConfig, PersonalizeConfig, CropConfig):
    """The job to be checked."""


def add_to(commands: Commands) -> None:
    """Look before loading."""
    files = commands.add("info", "say what a file is", "Say what safetensors files are, ours or others'.", info)
    files.add_argument("files", type=Path, nargs="+", metavar="file", help="a .safetensors file")

    machine = commands.add("doctor", "check machine, packages, weights and memory", DOCTOR_HELP, doctor)
    add_settings(machine, Examined)


def info(args: argparse.Namespace) -> None:
    """Say what files are."""
    from ..jobs.info import describe

    for index, path in enumerate(args.files):
        print(("\n" if index else "") + describe(path))


def doctor(args: argparse.Namespace) -> int:
    """Look at the machine, the packages and the weights; say whether a job fits. 1 if something is in the way."""
    from ..backbones.load import open_backbone
    from ..jobs.doctor import cards, examine
    from ..store.cache import default_folder

    given = settings_of(args, Examined)
    base = config_of(BaseConfig, given)
    config = config_of(PersonalizeConfig, given, base.defaults_of)
    crop_config = config_of(CropConfig, given, base.defaults_of)
    backbone = open_backbone(base)
    findings = examine(backbone, config, crop_config, Path(base.cache or default_folder()))
    print("\n".join([*map(str, findings), *cards(backbone, config, crop_config)]))
    return 1 if any(finding.bad for finding in findings) else 0

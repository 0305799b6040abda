"""What is here: files, the cache, and the machine with its packages and weights."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..cli import Commands, add_settings, settings_of
from ..config import BaseConfig, CropConfig, PersonalizeConfig, UserError
from ..settings import config_of

DOCTOR_HELP = """\
Check what is installed, which weights are found and where missing ones belong, and whether a personalization fits in
memory, before anything large is loaded. For a large base, also how `personalize --fit` would run it on several cards.

  metalora doctor --backbone flux-dev --resolution 512
"""

CACHE_HELP = """\
Latents of photos, prompts and embeddings of faces are kept so that nothing is computed twice. Nothing needs them: clear
them whenever you like. METALORA_CACHE_LIMIT=10 keeps at most 10 GB, and 0 nothing longer than a command needs it.

  metalora cache show
  metalora cache clear
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

    cache = commands.family("cache", "what is kept of photos and prompts", CACHE_HELP)
    for name, summary, action in (
        ("show", "where it is, and how large", show_cache),
        ("clear", "remove all of it", clear_cache),
    ):
        one = cache.add(name, summary, CACHE_HELP, action)
        one.add_argument("--cache", type=Path, metavar="FOLDER", help="which one (default: METALORA_CACHE)")


def info(args: argparse.Namespace) -> None:
    """Say what files are."""
    from ..jobs.info import describe

    for index, path in enumerate(args.files):
        print(("\n" if index else "") + describe(path))


def doctor(args: argparse.Namespace) -> int:
    """Look at the machine, the packages and the weights; say whether a job fits. 1 if something is in the way."""
    from ..backbones.pipeline import open_backbone
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


def show_cache(args: argparse.Namespace) -> None:
    """Where the cache is, and how large."""
    from ..store.cache import Cache, about, default_folder

    cache = Cache(args.cache or default_folder())
    print(about(cache.folder, cache.limit))


def clear_cache(args: argparse.Namespace) -> None:
    """Remove every entry, unless a process that runs needs them."""
    from ..store.cache import clear_up, default_folder, entries

    folder = args.cache or default_folder()
    count, size = clear_up(folder, limit=-1)
    if left := len(entries(folder)):
        raise UserError(f"{left} entries of {folder} were left: a running command uses them, or they are not yours.")
    print(f"removed {count} entries, {size / 1e6:,.1f} MB, from {folder}")

"""From one photo to images: crops, personalize, merge, generate."""

import argparse
from pathlib import Path
from shlex import quote

from .. import api
from ..backbones.bases import BASES
from ..cli import Commands, add_settings, flags_of, settings_of
from ..config import DEFAULT_BACKBONE, SINGLE_FILES, BaseConfig, CropConfig, UserError
from ..jobs import Console, driven
from ..settings import KEY_FORMATS, CropSettings, GenerateSettings, PersonalizeSettings

CROPS_HELP = """\
Find the face, plan up to 25 crops around it and write them as they would be trained on.

  metalora crops ada.jpg
  metalora crops group.jpg --face 2          the second of several faces
"""

PERSONALIZE_HELP = """\
Fit one person's photo and write an ordinary LoRA file that stock loaders read.

  metalora personalize ada.jpg --class woman
  metalora personalize ada.jpg --class woman --backbone flux-dev --fit     a plain LoRA, on a small card
  metalora personalize ada.jpg --class woman --backbone flux-dev --meta-down people.safetensors

Ctrl-C keeps what was trained; the same command goes on from there.
"""

GENERATE_HELP = """\
Make images. The same seed shows the same scene with and without the LoRA.

  metalora generate --lora ada.safetensors --compare --prompt 'a photo of a woman on a beach'
  metalora generate --lora ada.safetensors --prompts prompts.txt --images-per-prompt 4

A stopped call keeps the images it made; the same command makes the rest.
"""

MERGE_HELP = """\
Fold an adapter's three matrices a layer into the two of an ordinary LoRA, exactly.

  metalora merge ada.adapter.safetensors --key-format kohya --out ada-kohya.safetensors
"""


def add_to(commands: Commands) -> None:
    """What a person does with their own photo."""
    crops = commands.add("crops", "show what would be learned from a photo", CROPS_HELP, show_crops)
    crops.add_argument("photo", type=Path, nargs="?", default=argparse.SUPPRESS, help="a photo with a face in it")
    add_settings(crops, CropSettings)

    personal = commands.add("personalize", "photo -> LoRA (stage 2)", PERSONALIZE_HELP, personalize)
    personal.add_argument(
        "photo", type=Path, nargs="*", default=argparse.SUPPRESS, help="one photo of the person; more are allowed"
    )
    add_settings(personal, PersonalizeSettings)

    images = commands.add("generate", "make images with and without a LoRA", GENERATE_HELP, generate)
    add_settings(images, GenerateSettings)
    images.add_argument(
        "--prompt", action="append", default=argparse.SUPPRESS, help="what to show; may be given several times"
    )
    images.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line")

    adapter = commands.add("merge", "adapter file -> ordinary LoRA file", MERGE_HELP, merge)
    adapter.add_argument("adapter", type=Path, help="an .adapter.safetensors file that personalize wrote")
    adapter.add_argument("--out", type=Path, help="the LoRA file (default: the adapter's name without .adapter)")
    adapter.add_argument("--key-format", default="diffusers", choices=KEY_FORMATS, help="key names")
    adapter.add_argument("--overwrite", action="store_true", help="replace what exists")


def show_crops(args: argparse.Namespace) -> None:
    """Write the training crops of a photo and a page with all of them."""
    given = settings_of(args, CropSettings, ("photo",))
    if "photo" not in given:
        raise UserError("No photo was given.")
    photo = given.pop("photo")
    with Console().listening() as console:
        made = api.crops(photo, progress=console, **given)
    if left_out := len(made.planned.left_out):
        largest = given.get("max_upscale", CropConfig.max_upscale)
        print(f"{left_out} crops are left out: they would be enlarged more than {largest:g} times")
    count = len(made.planned.crops)
    print(f"wrote {count} crop{'s' if count != 1 else ''} and {made.sheet}")
    words = [str(photo), *flags_of({name: value for name, value in given.items() if name != "out"}, CropSettings)]
    print(f"next:  metalora personalize {' '.join(map(quote, words))} --class woman")


def personalize(args: argparse.Namespace) -> None:
    """Fit one person's photos; write a plain LoRA."""
    given = settings_of(args, PersonalizeSettings, ("photo",))
    photos = given.pop("photo", [])
    with Console().listening() as console:
        made = api.personalize(photos, progress=console, **given)
    before, after = made.training.validation
    print(f"validation loss {before:.4f} -> {after:.4f}, {made.training.seconds_per_step:.3f} s a step")
    others = [str(path) for path in (made.adapter, made.curve, made.lora.with_suffix(".toml")) if path]
    print(f"wrote {made.lora} (the LoRA), {', '.join(others)}")
    named = "" if given.keys() & set(SINGLE_FILES) else given.get("backbone", DEFAULT_BACKBONE)
    if named == DEFAULT_BACKBONE:
        print(f"the {named} draws rendered people alone: for a real photo name a base, such as --backbone klein-4b")
    drawn_with = BASES[named].draw_with if named in BASES else ""
    shown = {**given, "backbone": drawn_with} if drawn_with else given  # the same architecture, in fewer steps
    base = " ".join(["metalora generate", *map(quote, flags_of(shown, BaseConfig))])
    print(f"next:  {base} --lora {quote(str(made.lora))} --compare --prompt {quote(made.prompt)}")


def generate(args: argparse.Namespace) -> None:
    """Make images of prompts, with a LoRA, without, or both."""
    from ..jobs.generate import write_comparison

    given = settings_of(args, GenerateSettings, ("prompt",))
    prompts = given.pop("prompt", [])
    if args.prompts:
        prompts = [*(prompts if isinstance(prompts, list) else [prompts]), *read_prompts(args.prompts)]
    with Console().listening() as console:
        images = api.generate(prompts, progress=console, **given)
    folder = Path(given.get("out", GenerateSettings.out))
    print(f"wrote {len(images)} images to {folder}")
    if len(images) > 1:
        print(f"look:  {write_comparison(images, folder / 'sheet.png')}")


def merge(args: argparse.Namespace) -> None:
    """Turn an adapter (three matrices a layer) into an ordinary LoRA (two)."""
    from ..jobs.lora import merge_adapter

    name = args.adapter.name.removesuffix(".safetensors").removesuffix(".adapter")
    out = args.out or args.adapter.parent / f"{name}.safetensors"
    print(f"wrote {driven(merge_adapter(args.adapter, out, args.key_format, args.overwrite))}")


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines and lines that start with # are skipped."""
    from ..store.text import read_lines

    return [line.strip() for line in read_lines(path, "--prompts") if line.strip() and not line.startswith("#")]

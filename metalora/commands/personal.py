"""From one photo to images: crops, personalize, merge, generate."""

import argparse
from pathlib import Path
from shlex import quote

from ..config import CropConfig, GenerateConfig, PersonalizeConfig
from ..flags import add_options, config_from, flags_given
from .base_model import (
    DEFAULT_BACKBONE,
    add_backbone,
    add_fit,
    add_speed,
    backbone_of,
    cache_of,
    chosen_backbone,
    fast_backbone_of,
    fitted,
    preset_of,
)
from .choices import add_faces, add_key_format, add_overwrite
from .parsers import Commands
from .running import driven

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
    crops.add_argument("photo", type=Path, help="a photo with one face in it, or more and --face")
    crops.add_argument("--out", type=Path, help="folder for the crops (default: <photo>-crops)")
    crops.add_argument(
        "--backbone", default=DEFAULT_BACKBONE, help=f"whose defaults to use (default {DEFAULT_BACKBONE})"
    )
    add_faces(crops)
    add_options(crops, CropConfig, "crops")

    personal = commands.add("personalize", "photo -> LoRA (stage 2)", PERSONALIZE_HELP, personalize)
    personal.add_argument(
        "photos", type=Path, nargs="+", metavar="photo", help="one photo of the person; more are allowed"
    )
    personal.add_argument("--out", type=Path, help="the LoRA file (default: <photo>.safetensors)")
    personal.add_argument(
        "--meta-down",
        metavar="FILE",
        help="Meta-Down file of the class (default: the shipped one, if there is one), or 'random' (the control)",
    )
    add_key_format(personal)
    add_overwrite(personal)
    add_faces(personal)
    add_options(personal, PersonalizeConfig, "training")
    add_options(personal, CropConfig, "crops")
    add_backbone(personal)
    add_speed(personal)
    add_fit(personal)

    images = commands.add("generate", "make images with and without a LoRA", GENERATE_HELP, generate)
    images.add_argument("--prompt", action="append", default=[], help="what to show; may be given several times")
    images.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line")
    images.add_argument("--lora", type=Path, metavar="FILE", help="a LoRA of any maker and key format")
    images.add_argument("--compare", action="store_true", help="make each image without the LoRA too")
    images.add_argument("--out", type=Path, default=Path("images"), help="folder for the images (default: images)")
    add_overwrite(images)
    add_options(images, GenerateConfig, "sampling")
    add_backbone(images)
    add_speed(images)
    add_fit(images)

    adapter = commands.add("merge", "adapter file -> ordinary LoRA file", MERGE_HELP, merge)
    adapter.add_argument("adapter", type=Path, help="an .adapter.safetensors file that personalize wrote")
    adapter.add_argument("--out", type=Path, help="the LoRA file (default: the adapter's name without .adapter)")
    add_key_format(adapter)
    add_overwrite(adapter)


def show_crops(args: argparse.Namespace) -> None:
    """Write the training crops of a photo and a page with all of them."""
    from ..jobs.crops import write_crops

    config = config_from(args, CropConfig, args.backbone)
    out = args.out or Path(f"{args.photo.stem}-crops")
    result = driven(write_crops(args.photo, out, config, embedder=args.faces))
    left_out = len(result.planned.left_out)
    if left_out:
        print(f"{left_out} crops are left out: they would be enlarged more than {config.max_upscale:g} times")
    count = len(result.planned.crops)
    print(f"wrote {count} crop{'s' if count != 1 else ''} and {result.sheet}")
    given = flags_given(args, CropConfig)
    if args.backbone != DEFAULT_BACKBONE:
        given += ["--backbone", args.backbone]
    if args.faces != "sface":
        given += ["--faces", args.faces]
    words = [str(args.photo), *given, "--class", "woman"]
    print(f"next:  metalora personalize {' '.join(map(quote, words))}")


def personalize(args: argparse.Namespace) -> None:
    """Fit one person's photos; write a plain LoRA."""
    from ..jobs.fitting import fit_personalization
    from ..jobs.personalize import personalize_photos

    choose_method(args)
    config, crop_config = (
        config_from(args, PersonalizeConfig, preset_of(args)),
        config_from(args, CropConfig, preset_of(args)),
    )
    out = args.out or Path(f"{args.photos[0].stem}.safetensors")
    result = driven(
        personalize_photos(
            fitted(args, fast_backbone_of(args), fit_personalization, config, crop_config),
            args.photos,
            out,
            config,
            crop_config,
            meta_down=args.meta_down,
            cache=cache_of(args),
            embedder=args.faces,
            key_format=args.key_format,
            overwrite=args.overwrite,
        )
    )
    before, after = result.training.validation
    print(f"validation loss {before:.4f} -> {after:.4f}, {result.training.seconds_per_step:.3f} s a step")
    print(f"wrote {result.lora} (the LoRA), {result.adapter}, {result.curve}")
    example = f"--lora {quote(str(result.lora))} --compare --prompt {quote(config.prompt)}"
    print(f"next:  metalora generate{chosen_backbone(args)} {example}")


def choose_method(args: argparse.Namespace) -> None:
    """Where none is named: Meta-LoRA if there is a Meta-Down for this base and class, else a plain LoRA."""
    from ..jobs.meta_downs import shipped_meta_down

    if "method" in args:
        return
    class_name = getattr(args, "class_name", PersonalizeConfig().class_name)
    there = args.meta_down or shipped_meta_down(backbone_of(args).name, class_name)
    args.method = "meta-lora" if there else "lora"
    if not there:
        print("no Meta-Down is known for this base and class: a plain LoRA is trained (--method lora)")


def generate(args: argparse.Namespace) -> None:
    """Make images of prompts, with a LoRA, without, or both."""
    from ..jobs.fitting import fit_images
    from ..jobs.generate import generate_images
    from ..jobs.sheets import write_comparison

    prompts = list(args.prompt) + (read_prompts(args.prompts) if args.prompts else [])
    config = config_from(args, GenerateConfig, preset_of(args))
    images = driven(
        generate_images(
            fitted(args, fast_backbone_of(args), fit_images, config),
            prompts,
            args.out,
            config,
            lora=args.lora,
            compare=args.compare,
            cache=cache_of(args),
            overwrite=args.overwrite,
        )
    )
    print(f"wrote {len(images)} images to {args.out}")
    if len(images) > 1:
        print(f"look:  {write_comparison(images, args.out / 'sheet.png')}")


def merge(args: argparse.Namespace) -> None:
    """Turn an adapter (three matrices a layer) into an ordinary LoRA (two)."""
    from ..jobs.lora import merge_adapter

    out = args.out or args.adapter.with_name(
        args.adapter.name.removesuffix(".safetensors").removesuffix(".adapter") + ".safetensors"
    )
    print(f"wrote {driven(merge_adapter(args.adapter, out, args.key_format, args.overwrite))}")


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines and lines that start with # are skipped."""
    from ..store.text import read_lines

    return [line.strip() for line in read_lines(path, "--prompts") if line.strip() and not line.startswith("#")]

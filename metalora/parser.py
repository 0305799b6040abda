"""The commands of `metalora`, their flags, and the help that teaches them."""

import argparse
from importlib.metadata import version
from pathlib import Path

from .config import CropConfig, GenerateConfig, PersonalizeConfig
from .flags import add_knobs

DESCRIPTION = """\
One photo of a person -> a small LoRA of that person -> images of them in new places.

  metalora doctor                                      is everything there, and does it fit?
  metalora demo                                        the whole path on a portrait that comes along
  metalora crops ada.jpg                               what would be learned from this photo
  metalora personalize ada.jpg --class woman ...       photo -> ada.safetensors
  metalora generate --lora ada.safetensors --prompt '...'
  metalora evaluate images images ...                  how like the person are they?

Every command explains itself: metalora personalize --help
"""


def make_parser() -> argparse.ArgumentParser:
    """All commands with their flags."""
    parser = command_parser(argparse.ArgumentParser, prog="metalora", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"metalora {version('metalora')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        added = command_parser(commands.add_parser, name, help=summary, description=description)
        added.set_defaults(command=name)
        return added

    crops = command("crops", "show what would be learned from a photo", CROPS_HELP)
    crops.add_argument("photo", type=Path, help="a photo with one face in it, or more and --face")
    crops.add_argument("--out", type=Path, help="folder for the crops (default: <photo>-crops)")
    crops.add_argument("--backbone", default="flux-dev", help="whose defaults to use (default flux-dev)")
    add_faces(crops)
    add_knobs(crops, CropConfig, "crops")

    personal = command("personalize", "photo -> LoRA (stage 2)", PERSONALIZE_HELP)
    personal.add_argument(
        "photos", type=Path, nargs="+", metavar="photo", help="one photo of the person; more are allowed"
    )
    personal.add_argument("--out", type=Path, help="the LoRA file (default: <photo>.safetensors)")
    personal.add_argument("--meta-down", metavar="FILE", help="Meta-Down file of the class, or 'random' (the control)")
    add_spelling(personal)
    add_overwrite(personal)
    add_faces(personal)
    add_knobs(personal, PersonalizeConfig, "training")
    add_knobs(personal, CropConfig, "crops")
    add_backbone(personal)

    generate = command("generate", "make images with and without a LoRA", GENERATE_HELP)
    generate.add_argument("--prompt", action="append", default=[], help="what to show; may be given several times")
    generate.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line")
    generate.add_argument("--lora", type=Path, metavar="FILE", help="a LoRA of any maker and spelling")
    generate.add_argument("--compare", action="store_true", help="make each image without the LoRA too")
    generate.add_argument("--out", type=Path, default=Path("images"), help="folder for the images (default: images)")
    add_overwrite(generate)
    add_knobs(generate, GenerateConfig, "sampling")
    add_backbone(generate)

    merge = command("merge", "adapter file -> ordinary LoRA file", MERGE_HELP)
    merge.add_argument("adapter", type=Path, help="an .adapter.safetensors file that personalize wrote")
    merge.add_argument("--out", type=Path, help="the LoRA file (default: the adapter's name without .adapter)")
    add_spelling(merge)
    add_overwrite(merge)

    evaluate = command("evaluate", "score pictures that are there, from any method", EVALUATE_HELP)
    kinds = evaluate.add_subparsers(title="what", metavar="WHAT", required=True)
    pairs = command_parser(
        kinds.add_parser, "pairs", help="does an embedder tell people apart?", description=PAIRS_HELP
    )
    pairs.set_defaults(command="evaluate pairs")
    pairs.add_argument("folder", type=Path, help="photos; without --pairs, with one sub-folder a person")
    pairs.add_argument("--pairs", type=Path, metavar="CSV", help="columns first,second,same; paths relative to folder")
    images = command_parser(kinds.add_parser, "images", help="how like a person are images?", description=IMAGES_HELP)
    images.set_defaults(command="evaluate images")
    images.add_argument("images", type=Path, help="generated images; of several people, one sub-folder each")
    images.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="photos NOT trained on, likewise")
    images.add_argument(
        "--reference", type=Path, required=True, metavar="FILE", help="the photo trained on, or folders"
    )
    for scored in (pairs, images):
        add_faces(scored)
        scored.add_argument("--out", type=Path, metavar="JSON", help="write all numbers to this file too")

    info = command("info", "say what a file is", "Say what safetensors files are, ours or others'.")
    info.add_argument("files", type=Path, nargs="+", metavar="file", help="a .safetensors file")

    doctor = command("doctor", "check machine, packages, weights and memory", DOCTOR_HELP)
    add_knobs(doctor, PersonalizeConfig, "the job to be checked: training")
    add_knobs(doctor, CropConfig, "the job to be checked: crops")
    add_backbone(doctor)

    demo = command("demo", "the whole path on a portrait that comes along", DEMO_HELP)
    demo.add_argument(
        "--out", type=Path, default=Path("demo-result"), help="folder for the result (default: demo-result)"
    )
    add_backbone(demo)
    return parser


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples, and a flag and its help on one line where there is room."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=120)


def command_parser(make, *names, **options):  # type: ignore[no-untyped-def]  # ArgumentParser or add_parser
    """A parser whose help keeps the line breaks of its examples."""
    return make(*names, formatter_class=HelpFormatter, **options)


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Which base model, and where its files are."""
    group = parser.add_argument_group("base model", "a name or folder, or the four single files")
    group.add_argument(
        "--backbone",
        metavar="NAME",
        help="tiny (random weights, to try the path; default), flux-dev, flux-schnell, a diffusers folder or hub name",
    )
    for part, what in SINGLE_FILES.items():
        metavar = "FOLDER" if part == "tokenizers" else "FILE"
        group.add_argument(f"--{part.replace('_', '-')}", type=Path, metavar=metavar, help=what)
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    group.add_argument(
        "--precision", default="auto", choices=("auto", "bf16", "fp32"), help="of the base (default auto)"
    )
    group.add_argument("--cache", type=Path, metavar="FOLDER", help="for latents and prompts (default: METALORA_CACHE)")


SINGLE_FILES = {
    "transformer": "flux1-dev.safetensors or an fp8 variant",
    "vae": "ae.safetensors",
    "clip_l": "clip_l.safetensors",
    "t5xxl": "t5xxl_fp16.safetensors or an fp8 variant",
    "tokenizers": "a ComfyUI folder, or one with tokenizer and tokenizer_2 (default: the hub's cache)",
}


def add_faces(parser: argparse.ArgumentParser) -> None:
    """Who finds faces."""
    parser.add_argument("--faces", default="sface", choices=("sface", "arcface"), help="face detector (default sface)")


def add_spelling(parser: argparse.ArgumentParser) -> None:
    """How the LoRA's keys are named."""
    parser.add_argument(
        "--spelling",
        default="diffusers",
        choices=("diffusers", "bfl", "kohya"),
        help="key names; diffusers (the default) opens in diffusers and in ComfyUI",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Nothing is replaced unasked."""
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")


CROPS_HELP = """\
Find the face, plan up to 25 crops around it and write them as they would be trained on.

  metalora crops ada.jpg
  metalora crops group.jpg --face 2          the second of several faces
"""
PERSONALIZE_HELP = """\
Fit one person's photo and write an ordinary LoRA file that stock loaders read.

  metalora personalize ada.jpg --class woman --meta-down woman.safetensors --backbone flux-dev
  metalora personalize ada.jpg --class woman --method lora-crops     without a Meta-Down: a plain LoRA on the crops

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

  metalora merge ada.adapter.safetensors --spelling kohya --out ada-kohya.safetensors
"""
EVALUATE_HELP = """\
Scores of pictures, whoever made them.

  metalora evaluate pairs photos                                          what does a similarity mean?
  metalora evaluate images images --photos unseen --reference ada.jpg     how like Ada are the images?
"""
PAIRS_HELP = """\
How an embedder scores photos of the same and of different people: the ceiling and the floor of every similarity.

  metalora evaluate pairs photos                       photos/ada/1.jpg, photos/ada/2.jpg, photos/bob/1.jpg, ...
  metalora evaluate pairs photos --pairs pairs.csv     first,second,same
"""
IMAGES_HELP = """\
R-FaceSim: the mean cosine of generated faces to photos of the person that were NOT trained on, so that copying the
trained photo earns nothing. FaceSim is the same to that photo alone; what it is higher by is copying.

  metalora evaluate images images --photos unseen --reference ada.jpg
"""
DOCTOR_HELP = """\
Check what is installed, which weights are found and where missing ones belong, and whether a personalization fits in
memory, before anything large is loaded.

  metalora doctor --backbone flux-dev --resolution 512
"""
DEMO_HELP = """\
The whole path on a portrait that comes along (NASA's photograph of Eileen Collins, public domain): crops, Meta-LoRA,
plain LoRA and plain LoRA on the crops, the finished files, and images with and without them.
"""

"""Which base model: its flags, and what the other commands make of them."""

import argparse
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from ..config import UserError

if TYPE_CHECKING:  # imported late: --help stays fast
    from ..backbones.flux import FluxBackbone
    from ..backbones.speed import Speed
    from ..store.cache import Cache

DEFAULT_BACKBONE = "miniature"
FREE = -1.0  # --fit without a number: what is free

SINGLE_FILES = {
    "transformer": "flux1-dev.safetensors or an fp8 variant",
    "vae": "ae.safetensors",
    "clip_l": "clip_l.safetensors",
    "t5xxl": "t5xxl_fp16.safetensors or an fp8 variant",
    "tokenizers": "a ComfyUI folder, or one with tokenizer and tokenizer_2 (default: the hub's cache)",
}


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Which base model, and where its files are."""
    group = parser.add_argument_group("base model", "a name or folder, or the four single files")
    group.add_argument(
        "--backbone",
        metavar="NAME",
        help="miniature (ships; default), tiny (random weights), flux-dev, flux-schnell, a folder or hub name",
    )
    for part, what in SINGLE_FILES.items():
        metavar = "FOLDER" if part == "tokenizers" else "FILE"
        group.add_argument(f"--{part.replace('_', '-')}", type=Path, metavar=metavar, help=what)
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    group.add_argument(
        "--precision", default="auto", choices=("auto", "bf16", "fp32"), help="of the base (default auto)"
    )
    group.add_argument("--cache", type=Path, metavar="FOLDER", help="for latents and prompts (default: METALORA_CACHE)")


def add_speed(parser: argparse.ArgumentParser) -> None:
    """How the base is run; docs/speed.md says what was measured of it."""
    group = parser.add_argument_group("speed of the base")
    group.add_argument("--compile", action="store_true", help="compile its blocks: slow at first, then faster steps")
    group.add_argument("--attention", default="auto", help="auto, cudnn, flash-3, flash, efficient or math")
    group.add_argument("--eight-bit", action="store_true", help="int8 weights: half of bf16's memory, nearly the same")
    group.add_argument("--four-bit", action="store_true", help="NF4 weights: a third of bf16's memory, less exact")
    group.add_argument(
        "--swap-blocks", type=int, default=0, metavar="N", help="keep N blocks in main memory, each fetched in its turn"
    )
    group.add_argument("--cuda-graphs", action="store_true", help="with --compile: record blocks, for small images")


def add_fit(parser: argparse.ArgumentParser) -> None:
    """For a command whose memory can be estimated: choose among what `add_speed` and checkpoints offer."""
    parser.add_argument(
        "--fit",
        type=float,
        nargs="?",
        const=FREE,
        metavar="GB",
        help="choose weights, checkpoints and swapped blocks by the memory that is free, or as on a card of GB",
    )


def backbone_of(args: argparse.Namespace) -> "FluxBackbone":
    """The base model that the flags name; nothing is loaded yet."""
    from ..backbones.load import load_backbone

    files = single_files_of(args)
    if files and args.backbone:
        given = ", ".join("--" + part.replace("_", "-") for part in files)
        raise UserError(f"--backbone {args.backbone} and {given} name two base models: leave one out.")
    name = args.backbone or DEFAULT_BACKBONE
    return load_backbone(name, device=args.device, precision=args.precision, single_files=files)


def fast_backbone_of(args: argparse.Namespace) -> "FluxBackbone":
    """The same, run as the flags of `add_speed` say."""
    from ..backbones.block_swapping import check_count
    from ..backbones.speed import attention_that_runs

    backbone = backbone_of(args)
    backbone.speed = speed_of(args)
    if backbone.speed.swapped_blocks:
        check_count(backbone.speed.swapped_blocks, backbone.shape.double_blocks + backbone.shape.single_blocks)
    backbone.speed.check(backbone.device)
    kernel = attention_that_runs(backbone.speed, backbone.device, backbone.dtype)
    print(f"the base runs in {str(backbone.dtype).removeprefix('torch.')}: {backbone.speed} ({kernel})")
    return backbone


def speed_of(args: argparse.Namespace) -> "Speed":
    """What the flags of `add_speed` say."""
    from ..backbones.speed import Speed

    return Speed(
        compiled=args.compile,
        attention=args.attention,
        eight_bit=args.eight_bit,
        four_bit=args.four_bit,
        swapped_blocks=args.swap_blocks,
        cuda_graphs=args.cuda_graphs,
    )


def fitted(
    args: argparse.Namespace, backbone: "FluxBackbone", fit: Callable[..., str], *configs: object
) -> "FluxBackbone":
    """The backbone, with --fit run in the way that `fit` chooses for these configs, and says."""
    from ..jobs.fitting import imitate

    if args.fit is None:
        return backbone
    if args.eight_bit or args.four_bit or args.swap_blocks:
        raise UserError("--fit chooses between --eight-bit, --four-bit and --swap-blocks itself: leave them out.")
    if args.fit != FREE:
        imitate(backbone, args.fit)
    print(fit(backbone, *configs))
    return backbone


def single_files_of(args: argparse.Namespace) -> dict[str, Path]:
    """The single files that were given, by part."""
    return {part: path for part in SINGLE_FILES if (path := getattr(args, part)) is not None}


def preset_of(args: argparse.Namespace) -> str:
    """Whose defaults apply: single files are FLUX.1's, so the paper's."""
    return "flux-dev" if single_files_of(args) else args.backbone or DEFAULT_BACKBONE


def cache_of(args: argparse.Namespace) -> "Cache":
    """The cache folder that the flags or the system name."""
    from ..store.cache import Cache, default_folder

    return Cache(args.cache or default_folder())


def chosen_backbone(args: argparse.Namespace) -> str:
    """The flags that name the same base in the next command."""
    if args.backbone:
        return f" --backbone {quote(args.backbone)}"
    return "".join(f" --{part.replace('_', '-')} {quote(str(path))}" for part, path in single_files_of(args).items())

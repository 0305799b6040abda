"""Flags that several commands share."""

import argparse


def add_faces(parser: argparse.ArgumentParser) -> None:
    """Who finds and embeds faces."""
    names = "sface (the default), facenet, facenet:FILE with its weights, or arcface"
    parser.add_argument("--faces", default="sface", metavar="NAME", help=f"who finds and embeds faces: {names}")


def add_dino(parser: argparse.ArgumentParser) -> None:
    """Who compares whole images with the reference, beside CLIP."""
    default = "facebook/dino-vits16"
    parser.add_argument(
        "--dino",
        nargs="?",
        const=default,
        metavar="NAME",
        help=f"compare with the reference by DINO too: a folder or hub name (default where asked for: {default})",
    )


def add_key_format(parser: argparse.ArgumentParser) -> None:
    """How the LoRA's keys are named."""
    parser.add_argument(
        "--key-format",
        default="diffusers",
        choices=("diffusers", "bfl", "kohya"),
        help="key names; diffusers (the default) opens in diffusers and in ComfyUI",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Nothing is replaced unasked."""
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")

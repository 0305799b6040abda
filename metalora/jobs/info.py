"""What a file is, in words, and what a Meta-Down holds, in numbers."""

import hashlib
import json
import re
from collections.abc import Iterable
from itertools import islice
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..backbones.lora_foreign import METHODS, base_of
from ..backbones.lora_reading import layer_and_role
from ..store import files
from .training_files import downs_of

TITLES = {
    "meta-down": "Meta-Down: the shared half of a LoRA, of one domain",
    "adapter": "adapter: one person's three matrices a layer; `metalora merge` makes a LoRA of it",
    "lora": "finished LoRA, for stock loaders",
    "state": "saved state of a stopped run: repeat its command to go on",
    "checkpoint": "checkpoint of meta-train: repeat its command to go on",
}
FACTS = (
    ("base", "base model"),
    ("domain", "class"),
    ("caption", "caption while training"),
    ("sites", "sites"),
    ("meta_rank", "meta_rank (r1)"),
    ("rank", "rank (r2)"),
    ("key_format", "key names"),
    ("crops", "crops trained on"),
    ("meta_down", "Meta-Down"),
    ("photos", "photos (hashes)"),
    ("objective", "trained by stage 1"),
    ("people", "people trained on"),
    ("face_embedder", "face embedder, its hash"),
    ("unseen", "loss on unseen people"),
    ("options", "options"),
)
ADAPTERS = ("LoRA", ("down", "up")), ("LoKr", ("lokr",)), ("LoHa", ("hada",)), ("LoRA of whole differences", ("diff",))
OPTIMIZER = re.compile(r"(^|[._])(exp_avg|exp_avg_sq|momentum_buffer|optimizers?)([._]|$)")
FLUX = re.compile(
    r"^((model\.)?diffusion_model\.|transformer\.)?"
    r"(double_blocks\.0\.img_attn\.qkv|transformer_blocks\.0\.attn\.to_q)\.weight$"
)
MOST = 100_000  # files whose dates are looked at
LONGEST = 2000  # characters that are looked at or shown


def describe(path: Path) -> str:
    """Several lines on a safetensors file: its kind, what it was made for and with, its size."""
    with files.opened(path) as file:
        metadata = files.own_metadata(file.metadata())
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # not a dict
    lines = [f"{path}: {TITLES.get(metadata.get('kind', ''), '') or guess(shapes)}"]
    lines += [f"  {title}: {shown(metadata[key])}" for key, title in FACTS if key in metadata]
    numbers = sum(map(prod, shapes.values()))
    lines.append(f"  {len(shapes)} tensors, {numbers:,} numbers, {path.stat().st_size / 1e6:.2f} MB")
    return "\n".join(lines)


def guess(shapes: dict[str, tuple[int, ...]]) -> str:
    """What a file that is not ours seems to be, by its keys."""
    if not shapes:
        return "an empty file"
    example = f"keys such as {printable(next(iter(shapes)))}"
    roles = {name: layer_and_role(name[:LONGEST])[1] for name in shapes}
    kinds = [kind for kind, starts in ADAPTERS if any(role.startswith(starts) for role in roles.values())]
    others = [kind for kind, pattern, _ in METHODS if any(re.search(pattern, name[:LONGEST]) for name in shapes)]
    if kinds or others:
        ranks = sorted({shapes[name][0] for name, role in roles.items() if role == "down" and shapes[name]})
        rank = f"rank {', '.join(map(str, ranks))}, " if ranks else ""
        found = base_of(shapes)
        of_base = f"; it looks like {found[0]} LoRA, which FLUX.1 cannot take" if found else ""
        return f"a {' and '.join(others[:1] or kinds)} of another maker, {rank}{example}{of_base}"
    if any(OPTIMIZER.search(name) for name in shapes):
        return f"the state of an optimizer, {example}"
    if any(FLUX.search(name) for name in shapes):
        return "a FLUX checkpoint"
    return f"not a file of this project, {example}"


def shown(value: str) -> str:
    """Lists and settings as people write them; other metadata as they are."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return printable(value)
    if isinstance(parsed, dict):
        return printable(", ".join(f"{key} {setting}" for key, setting in parsed.items() if setting != ""))
    if isinstance(parsed, list):
        return printable(", ".join(str(item)[:12] for item in parsed))
    return printable(value)


def printable(text: str) -> str:
    """Without what could steer a terminal; other people's files hold what they like."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST])


def inspect_meta_down(path: Path) -> str:
    """How many directions each kind of site has, how long its rows are, and how evenly they are spread."""
    tensors, _ = files.read(path, ("meta-down",))
    kinds: dict[str, list[Tensor]] = {}
    for name, down in downs_of(path, tensors).items():
        words = name.split(".")
        kinds.setdefault(f"{words[0]}.*.{'.'.join(words[2:])}", []).append(down.double())
    lines = [f"{'sites':58}{'count':>6}{'r1 x inputs':>16}{'row length':>12}{'effective rank':>16}"]
    for kind, downs in sorted(kinds.items()):
        length = sum(down.norm(dim=1).mean().item() for down in downs) / len(downs)
        spread = sum(effective_rank(down) for down in downs) / len(downs)
        size = " x ".join(map(str, downs[0].shape))
        lines.append(f"{kind:58}{len(downs):6}{size:>16}{length:12.4f}{spread:16.2f}")
    lines.append("A random Meta-Down has rows of length 0.577 and an effective rank just below r1.")
    return "\n".join(lines)


def effective_rank(down: Tensor) -> float:
    """exp of the entropy of the squared singular values: r1 if all directions are equally strong, 1 if one is all."""
    strengths = torch.linalg.svdvals(down.double())
    share = (strengths / strengths.max().clamp_min(1e-300)).square()  # of the largest, whose square may not exist
    share = share / share.sum().clamp_min(1e-300)
    return float(torch.exp(-(share * share.clamp_min(1e-30).log()).sum()))


def fingerprint_of_stats(paths: Iterable[Path]) -> str:
    """sha256 over the names, sizes and dates of at most `MOST` files, where reading them all takes too long."""
    files = [path for path in islice(paths, MOST) if path.is_file()]
    seen = sorted(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    return hashlib.sha256("\n".join(seen).encode("utf-8", "replace")).hexdigest()

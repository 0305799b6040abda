"""What a file is, in words."""

import json
import re
from math import prod
from pathlib import Path

from ..backbones.lora_foreign import METHODS, base_of
from ..backbones.lora_reading import layer_and_role
from ..store import files

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

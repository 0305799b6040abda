"""What a file is, in words."""

import json
from math import prod
from pathlib import Path

from ..store import files

TITLES = {
    "meta-down": "Meta-Down: the shared half of a LoRA, of one domain",
    "adapter": "adapter: one person's three matrices a layer; `metalora merge` makes a LoRA of it",
    "lora": "finished LoRA, for stock loaders",
    "state": "saved state of a stopped run: repeat its command to go on",
}
FACTS = (
    ("base", "base model"),
    ("domain", "class"),
    ("caption", "caption while training"),
    ("sites", "sites"),
    ("meta_rank", "meta_rank (r1)"),
    ("rank", "rank (r2)"),
    ("spelling", "key names"),
    ("crops", "crops trained on"),
    ("meta_down", "Meta-Down"),
    ("photos", "photos (hashes)"),
    ("objective", "trained by stage 1"),
    ("people", "people trained on"),
    ("face_embedder", "face embedder, its hash"),
    ("unseen", "loss on unseen people"),
    ("knobs", "knobs"),
)


def describe(path: Path) -> str:
    """Several lines on a safetensors file: its kind, what it was made for and with, its size."""
    with files.opened(path) as file:
        facts = files.facts_of(file.metadata())
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # not a dict
    lines = [f"{path}: {TITLES.get(facts.get('kind', ''), '') or guess(shapes)}"]
    lines += [f"  {title}: {shown(facts[key])}" for key, title in FACTS if key in facts]
    numbers = sum(map(prod, shapes.values()))
    lines.append(f"  {len(shapes)} tensors, {numbers:,} numbers, {path.stat().st_size / 1e6:.2f} MB")
    return "\n".join(lines)


def guess(shapes: dict[str, tuple[int, ...]]) -> str:
    """What a file that is not ours seems to be, by its keys."""
    names = list(shapes)
    if any(".lora_A." in name or ".lora_down." in name for name in names):
        ranks = sorted({shape[0] for name, shape in shapes.items() if ".lora_A." in name or ".lora_down." in name})
        return f"a LoRA of another maker, rank {', '.join(map(str, ranks))}, keys such as {names[0]}"
    if any("double_blocks.0.img_attn" in name or "transformer_blocks.0.attn.to_q" in name for name in names):
        return "a FLUX checkpoint"
    return f"not a file of this project, keys such as {names[0]}" if names else "an empty file"


def shown(value: str) -> str:
    """Lists and settings as people write them; other facts as they are."""
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        return value
    if isinstance(parsed, dict):
        return ", ".join(f"{key} {setting}" for key, setting in parsed.items() if setting != "")
    if isinstance(parsed, list):
        return ", ".join(str(item)[:12] for item in parsed)
    return value

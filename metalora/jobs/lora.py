"""Finished LoRA files: checked before they are written, loaded back after; and read again in any spelling."""

import json
from pathlib import Path

import torch

from ..backbones.keys import FluxShape
from ..backbones.lora_spellings import LoRA, check_lora, read_lora, spell_lora
from ..backbones.protocol import Backbone
from ..config import UserError
from ..method.adapter import Adapter, Adapters
from ..method.merge import fold
from ..store import files
from . import Job


def save_lora(path: Path, lora: LoRA, spelling: str, shape: FluxShape, facts: dict[str, str]) -> None:
    """Write an ordinary LoRA: every key exists in the base, every shape fits, nothing is NaN, and it loads back."""
    tensors = spell_lora(lora, spelling, shape)
    check_lora(tensors, spelling, shape)
    files.write(path, tensors, "lora", {**facts, "spelling": spelling, **model_spec(facts, shape)})
    back, _ = files.read(path, ("lora",))
    reread, unmatched = read_lora(back, shape)
    same = reread.keys() == lora.keys() and all(
        torch.equal(a, b) for name in lora for a, b in zip(reread[name], lora[name], strict=True)
    )
    if unmatched or not same:
        path.unlink()
        raise UserError(f"{path} did not read back as it was written ({len(unmatched)} unknown keys); it was removed.")


def load_lora(path: Path, backbone: Backbone) -> tuple[LoRA, dict[str, str]]:
    """An ordinary LoRA of any maker and spelling; refused unless every key belongs to this base and fits."""
    with files.opened(path) as file:
        facts = files.facts_of(file.metadata())
        if facts.get("kind", "lora") != "lora":
            raise UserError(
                f"{path} is of kind {facts['kind']!r}, not a finished LoRA. `metalora merge` makes one of an adapter."
            )
        files.check_base(path, facts, backbone.name)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    lora, unmatched = read_lora(tensors, backbone.shape)
    if unmatched or not lora:
        raise UserError(
            f"{path} has {len(unmatched)} of {len(tensors)} keys that {backbone.name} does not know"
            f"{', such as ' + sorted(unmatched)[0] if unmatched else ''}. It was made for another base."
        )
    sites = {site.name: site for site in backbone.sites("all")}
    for name, (down, up) in lora.items():
        site = sites[name]
        if (down.shape[1], up.shape[0]) != (site.in_features, site.out_features):
            raise UserError(
                f"{path}: {name} is {down.shape[1]} -> {up.shape[0]}, but in {backbone.name} the layer is "
                f"{site.in_features} -> {site.out_features}. It was made for another base."
            )
    return lora, facts


def lora_adapters(lora: LoRA, backbone: Backbone, strength: float) -> Adapters:
    """A LoRA as adapters that act while images are made; the base's weights stay untouched."""
    sites = [site for site in backbone.sites("all") if site.name in lora]
    return Adapters(
        sites, {site.name: Adapter(lora[site.name][0], None, lora[site.name][1], strength) for site in sites}
    )


def merge_adapter(adapter: Path, out: Path, spelling: str, overwrite: bool = False) -> Job[Path]:
    """Three matrices a site become two; the base is not needed, since the file knows its shape."""
    tensors, facts = files.read(adapter, ("adapter",))
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already. Choose another --out, or say --overwrite to replace it.")
    scale, shape = float(facts["scale"]), FluxShape(**json.loads(facts["shape"]))
    lora = {
        name.removesuffix(".up"): fold(
            tensors[name.removesuffix("up") + "down"], tensors.get(name.removesuffix("up") + "mid"), up, scale
        )
        for name, up in tensors.items()
        if name.endswith(".up")
    }
    save_lora(out, lora, spelling, shape, facts)
    return out
    yield  # a job, though it has no steps


def model_spec(facts: dict[str, str], shape: FluxShape) -> dict[str, str]:
    """The fields of Stability's model metadata standard that other programs show. No date: same run, same bytes."""
    architecture = {"flux.1-dev": "flux-1-dev/lora", "flux.1-schnell": "flux-1-schnell/lora"}.get(shape.name)
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture or f"{shape.name}/lora",
        "modelspec.title": f"Meta-LoRA of one {facts.get('domain', 'person')}",
        "modelspec.description": f"Rank {facts.get('rank', '?')}; caption while training: {facts.get('caption', '?')}",
    }

"""LoRA files of FLUX.2, Z-Image and Qwen-Image in their makers' layouts, and what diffusers reads in each."""

import inspect
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from metalora.backbones.architecture import Architecture
from metalora.backbones.families import FAMILIES
from metalora.backbones.lora_reading import makers_names

R = 4
Tensors = dict[str, Tensor]


@dataclass
class Made:
    """A file, and what another program adds to each layer when it reads it."""

    path: Path
    shape: Architecture
    expected: dict[str, Tensor]  # site -> [out, in]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def saved(folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    path = folder / "pytorch_lora_weights.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path


def deltas_of(model: torch.nn.Module, adapter: str) -> dict[str, Tensor]:
    """What each PEFT layer of a model adds to its weight."""
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight") and adapter in module.scaling:
            found[name.removeprefix("base_model.model.")] = module.get_delta_weight(adapter).detach().clone()
    return found


@cache
def base_pipeline(family: str) -> tuple[Any, Architecture]:
    """A tiny pipeline of another base, with nothing but its transformer."""
    import diffusers
    from tiny_bases import PIPELINES, drawn, skip_without

    skip_without(family)
    name, builders, _ = PIPELINES[family]
    transformer = drawn(builders()["transformer"], 0)
    kind = getattr(diffusers, name)
    parts = dict.fromkeys(set(inspect.signature(kind).parameters) - {"transformer"})
    settings = {key: parts.pop(key) for key in list(parts) if key.startswith(("is_", "text_encoder_select"))}
    assert all(value is None for value in settings.values())
    return kind(**parts, transformer=transformer), next(one for one in FAMILIES if one.name == family).architecture(
        transformer.config
    )


def of_base(family: str, layout: str, folder: Path) -> Made:
    """A LoRA of another base in a layout that diffusers reads."""
    pipe, architecture = base_pipeline(family)
    g, tensors = generator(), {}
    for stem, (reads, writes) in layers_of_base(architecture, layout).items():
        diffusers_roles = layout in ("diffusers", "ai-toolkit")
        for role, size in zip(ROLES_OF[diffusers_roles], ((R, reads), (writes, R)), strict=True):
            tensors[f"{stem}.{role}.weight"] = torch.randn(*size, generator=g)
        if not diffusers_roles:
            tensors[f"{stem}.alpha"] = torch.tensor(3.0)
    config = {"r": R, "lora_alpha": 10, "target_modules": [site.name for site in architecture.places]}
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in config.items()})}
    path = saved(folder, tensors, metadata if layout == "diffusers" else None)
    pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="theirs")
    try:
        return Made(path, architecture, deltas_of(pipe.transformer, "theirs"))
    finally:
        pipe.unload_lora_weights()


ROLES_OF = ("lora_down", "lora_up"), ("lora_A", "lora_B")


def layers_of_base(architecture: Architecture, layout: str) -> dict[str, tuple[int, int]]:
    """Key stem -> (reads, writes); of FLUX.2 all but diffusers take Black Forest Labs' layers."""
    if layout == "diffusers":
        return {f"transformer.{site.name}": (site.in_features, site.out_features) for site in architecture.places}
    fused = {name: own for name, own in makers_names(architecture).items() if "." in name}
    if not architecture.name.startswith("flux.2"):
        fused = {site.name: (site,) for site in architecture.places}
    spelled = (lambda name: f"diffusion_model.{name}") if layout == "ai-toolkit" else kohya_stem
    return {spelled(name): (own[0].in_features, sum(site.out_features for site in own)) for name, own in fused.items()}


def kohya_stem(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")

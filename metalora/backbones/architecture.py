"""A base model as memory estimates and LoRAs know it: a name, its sites, and what LoRA files call them.

In memory a LoRA is {site name: (down [rank, in], up [out, rank])}, in files one of the key formats that programs read:

| key_format | keys | read by |
|---|---|---|
| diffusers | transformer.<diffusers module>.lora_A.weight, .lora_B.weight; of a UNet, as kohya | diffusers, ComfyUI |
| bfl | diffusion_model.<fused module>.lora_down.weight, .lora_up.weight, .alpha | ComfyUI |
| kohya | lora_unet_<fused module, underscores>.lora_down.weight, .lora_up.weight, .alpha | diffusers, ComfyUI, kohya |

FLUX.1 has all three, every other base the first. alpha is always written equal to the rank: nothing is rescaled. Where
a format fuses k layers, their LoRAs of rank r become one of rank k * r: the downs stacked, the ups on the diagonal of a
block matrix. A layer without a LoRA has a block of zeros in both, and a lower rank is filled up with zeros; reading
takes off what is zero in down and up alike.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import UserError
from ..method.adapter import Site

LoRA = dict[str, tuple[Tensor, Tensor]]

KEY_FORMATS = ("diffusers", "bfl", "kohya")
STRONGEST = 1e6  # of a delta's numbers; a layer's own weights are below 10
PRESETS = ("all", "attention")
ATTENTION = re.compile(r"(^|[._])(self_|cross_)?(attn\d*|attention)\.")  # "attn.to_q", "img_attn.qkv", "attention.out"
VECTOR = re.compile(r"(^|[._])(ada_?ln|mod(ulation)?|(ada)?norm)|emb_layers|time_|distilled_guidance", re.IGNORECASE)
TEXT_STREAM = re.compile(r"\.(add_|to_add|txt_|context_block)|_context\.")
BLOCK = re.compile(r"^(.*?\.\d+)\.")
HEAD = 128  # numbers in an attention head; every FLUX.1 has this, the tiny one too


class Architecture(ABC):
    """What distinguishes one base model from another, as far as its LoRAs can tell."""

    prefix = "transformer."  # of the keys of a LoRA file that diffusers and ComfyUI both read

    @property
    @abstractmethod
    def name(self) -> str:
        """As files name it: "flux.1-dev"."""

    @property
    @abstractmethod
    def places(self) -> tuple[Site, ...]:
        """Every site in the order of the blocks, under the names that LoRA files use."""

    @property
    def fused(self) -> tuple[Site, ...]:
        """The same sites in Black Forest Labs' layers; empty for a base whose LoRAs have one key format only."""
        return ()

    @property
    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """What files say of it beside its name, so that a LoRA can be made of an adapter file alone."""

    def sites(self, preset: str) -> list[Site]:
        """The sites of a preset; a UserError for an unknown one."""
        return chosen(self.places, preset)

    @property
    def blocks(self) -> dict[str, list[Site]]:
        """The sites by the block they are in, in the order of the blocks."""
        found: dict[str, list[Site]] = {}
        for site in self.places:
            match = BLOCK.match(site.name)
            found.setdefault(match[1] if match else site.name, []).append(site)
        return found


@dataclass(frozen=True)
class ListedArchitecture(Architecture):
    """One that is known by its list of sites: whatever a library's own classes show."""

    called: str
    listed: tuple[Site, ...]
    prefix: str = "transformer."

    @property
    def name(self) -> str:
        return self.called

    @property
    def places(self) -> tuple[Site, ...]:
        return self.listed

    @property
    def metadata(self) -> dict[str, str]:
        return {"prefix": self.prefix}


KNOWN = {  # (family, width, blocks): how files call it
    ("flux.2", 3072, 25): "flux.2-klein-4b",
    ("flux.2", 6144, 56): "flux.2-dev",
    ("z-image", 3840, 34): "z-image",
    ("qwen-image", 3072, 60): "qwen-image",
}


def base_name(family: str, sites: Sequence[Site]) -> str:
    """What files call a base of this family with these sites, whichever library has loaded it."""
    listed = ListedArchitecture("", tuple(sites))
    width = min(site.in_features for site in sites if not VECTOR.search(site.name))
    blocks = len(listed.blocks)
    return KNOWN.get((family, width, blocks), f"{family}-{width}x{blocks}")


def chosen(sites: Iterable[Site], preset: str) -> list[Site]:
    """Those of a preset: all, or the layers of attention."""
    if preset not in PRESETS:
        raise UserError(f"There are no sites called {preset!r}; choose one of: {', '.join(PRESETS)}.")
    return [site for site in sites if preset == "all" or ATTENTION.search(site.name)]


def format_lora(lora: LoRA, key_format: str, architecture: Architecture) -> dict[str, Tensor]:
    """The tensors of a LoRA file."""
    layers = layers_of(key_format, architecture)
    unknown = lora.keys() - {site.name for fused in layers.values() for site in fused}
    if unknown:
        raise UserError(
            f"The LoRA has {len(unknown)} layers that {architecture.name} has not, {min(unknown)} among them. "
            "It was made for another base."
        )
    tensors: dict[str, Tensor] = {}
    for stem, fused in layers.items():
        if any(site.name in lora for site in fused):
            down, up = lora[fused[0].name] if len(fused) == 1 else fuse(fused, lora)
            if has_no_alpha(key_format, architecture):
                tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            else:
                alpha = torch.tensor(float(len(down)))
                tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": alpha}
    return tensors


def check_lora(tensors: dict[str, Tensor], key_format: str, architecture: Architecture) -> None:
    """Raise a UserError unless every key is one of the base's in this format, every shape fits, and all is finite."""
    no_alpha = has_no_alpha(key_format, architecture)
    roles = ("lora_A.weight", "lora_B.weight") if no_alpha else ("lora_down.weight", "lora_up.weight", "alpha")
    layers = layers_of(key_format, architecture)
    keys_of = {stem: [f"{stem}.{role}" for role in roles] for stem in layers}
    known = {key for keys in keys_of.values() for key in keys}
    problems = [f"{key} is unknown" for key in tensors if key not in known]
    problems += [f"{key} is not finite" for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    for stem, keys in keys_of.items():
        absent = [key for key in keys if key not in tensors]
        if absent:
            problems += [f"{absent[0]} is missing"] if len(absent) < len(keys) else []
            continue
        down, up, *alpha = (tensors[key] for key in keys)
        reads, writes = layers[stem][0].in_features, sum(site.out_features for site in layers[stem])
        if wrong := misfit(down, up, reads, writes):
            problems.append(f"{stem}: {wrong}")
        elif alpha and alpha[0].item() != len(down):
            problems.append(f"{stem}.alpha is {alpha[0].item()}, not the rank {len(down)}")
        elif (most := largest(down, up)) > STRONGEST:
            problems.append(f"{stem} adds numbers of up to {most:.1e} to weights that are below 10")
    if not tensors:
        problems.append("it is empty")
    if problems:
        raise UserError(
            f"The LoRA does not fit {architecture.name} ({len(problems)} problems): {'; '.join(problems[:3])}. "
            "It was not written; was it trained on another base?"
        )


def largest(down: Tensor, up: Tensor) -> float:
    """No number of up @ down is larger."""
    return float(up.double().norm(dim=1).max() * down.double().norm(dim=0).max())


def fuse(fused: Iterable[Site], lora: LoRA) -> tuple[Tensor, Tensor]:
    """One LoRA on a fused layer that does exactly what those on its slices do."""
    fused = list(fused)
    present = [lora[site.name] for site in fused if site.name in lora]
    rank = max(len(down) for down, _ in present)
    down = present[0][0].new_zeros(rank * len(fused), fused[0].in_features)
    up = present[0][1].new_zeros(sum(site.out_features for site in fused), rank * len(fused))
    for index, site in enumerate(fused):
        if site.name in lora:
            site_down, site_up = lora[site.name]
            down[index * rank :][: len(site_down)] = site_down
            up[site.rows, index * rank :][:, : len(site_down)] = site_up
    return down, up


def has_no_alpha(key_format: str, architecture: Architecture) -> bool:
    """Whether a format is diffusers' own; of a UNet, kohya's is what both programs read."""
    return key_format == "diffusers" and architecture.prefix.endswith(".")


def layers_of(key_format: str, architecture: Architecture) -> dict[str, tuple[Site, ...]]:
    """Key stem -> the sites of the layer it stands for, which are several where layers are fused."""
    if key_format not in KEY_FORMATS:
        raise UserError(f"There is no LoRA key format {key_format!r}; choose one of: {', '.join(KEY_FORMATS)}.")
    if key_format == "diffusers":
        spelled = (lambda name: name) if architecture.prefix.endswith(".") else (lambda name: name.replace(".", "_"))
        return {architecture.prefix + spelled(site.name): (site,) for site in architecture.places}
    if not architecture.fused:
        raise UserError(
            f"The key format {key_format!r} is FLUX.1's. For {architecture.name} use 'diffusers': ComfyUI reads it too."
        )
    grouped: dict[str, tuple[Site, ...]] = {}
    for site in architecture.fused:
        stem = f"diffusion_model.{site.module}" if key_format == "bfl" else f"lora_unet_{site.module.replace('.', '_')}"
        grouped[stem] = (*grouped.get(stem, ()), site)
    return grouped


def misfit(down: Tensor, up: Tensor, reads: int, writes: int) -> str:
    """What is wrong with the shapes of a LoRA on a layer of so many inputs and outputs, or nothing."""
    if (down.ndim, up.ndim) == (2, 2) and (down.shape[1], up.shape[0]) == (reads, writes) and len(down) == up.shape[1]:
        return ""
    return f"down {list(down.shape)} and up {list(up.shape)} do not fit a layer of {reads} -> {writes}"

"""A base model as files, memory estimates and LoRAs know it: a name and its sites."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..config import UserError
from ..method.adapter import Site

PRESETS = ("all", "attention")
ATTENTION = re.compile(r"(^|[._])(self_|cross_)?(attn\d*|attention)\.")  # "attn.to_q", "img_attn.qkv", "attention.out"
VECTOR = re.compile(r"(^|[._])(ada_?ln|mod(ulation)?|(ada)?norm)|emb_layers|time_|distilled_guidance", re.IGNORECASE)
TEXT_STREAM = re.compile(r"\.(add_|to_add|txt_|context_block)|_context\.")
BLOCK = re.compile(r"^(.*?\.\d+)\.")


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

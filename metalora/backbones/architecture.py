"""A base model as files, memory estimates and LoRAs know it: a name and its sites.

FLUX.1's sites have two names: diffusers', which sites carry, and Black Forest Labs', as ComfyUI has the layers. These
fuse the layers that read the same input (q, k, v and, in single blocks, the first layer of the MLP) into one matrix;
there a site is a slice of its output rows.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import NamedTuple

from ..config import UserError
from ..method.adapter import Site

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


@dataclass(frozen=True)
class FluxShape(Architecture):
    """What distinguishes one FLUX architecture from another: enough to know every layer's name and shape."""

    width: int
    double_blocks: int
    single_blocks: int
    in_channels: int  # of a token: 4 times the latents' channels
    joint_dim: int  # of T5's embeddings
    pooled_dim: int  # of CLIP's
    guidance: bool  # whether guidance is embedded: dev has it, schnell has not
    mlp_ratio: int = 4

    @property
    def name(self) -> str:
        """The architecture as files name it."""
        if (self.width, self.double_blocks, self.single_blocks) == (3072, 19, 38):
            return "flux.1-dev" if self.guidance else "flux.1-schnell"
        return f"flux-{self.width}x{self.double_blocks}x{self.single_blocks}{'' if self.guidance else '-schnell'}"

    @property
    def places(self) -> tuple[Site, ...]:
        """See `Architecture`; as diffusers has the layers."""
        return layers_in_blocks(self, fused=False)

    @property
    def fused(self) -> tuple[Site, ...]:
        """See `Architecture`."""
        return layers_in_blocks(self, fused=True)

    @property
    def metadata(self) -> dict[str, str]:
        """See `Architecture`: all sizes."""
        return {"shape": json.dumps(asdict(self))}

    @property
    def max_tokens(self) -> int:
        """T5's tokens that a FLUX was trained with: 512 for dev, 256 for schnell."""
        return 512 if self.guidance else 256


class Layer(NamedTuple):
    """One linear layer of a block in both key formats; sizes in units of the model's width."""

    name: str  # diffusers, inside the block
    fused: str  # Black Forest Labs, inside the block
    reads: int
    writes: int
    start: int | None = None  # of the slice of a fused layer


def double_block(mlp: int) -> list[Layer]:
    """The linear layers of a double block, the image's stream before the text's."""
    layers = []
    for stream, norm, inputs, out, ff in (
        ("img", "norm1", ("to_q", "to_k", "to_v"), "to_out.0", "ff"),
        ("txt", "norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "ff_context"),
    ):
        layers += [
            Layer(f"{norm}.linear", f"{stream}_mod.lin", 1, 6),
            *(Layer(f"attn.{q}", f"{stream}_attn.qkv", 1, 1, start) for start, q in enumerate(inputs)),
            Layer(f"attn.{out}", f"{stream}_attn.proj", 1, 1),
            Layer(f"{ff}.net.0.proj", f"{stream}_mlp.0", 1, mlp),
            Layer(f"{ff}.net.2", f"{stream}_mlp.2", mlp, 1),
        ]
    return layers


def single_block(mlp: int) -> list[Layer]:
    """The linear layers of a single block. proj_out reads attention and MLP together, so it is no attention layer."""
    return [
        Layer("norm.linear", "modulation.lin", 1, 3),
        *(Layer(f"attn.{q}", "linear1", 1, 1, start) for start, q in enumerate(("to_q", "to_k", "to_v"))),
        Layer("proj_mlp", "linear1", 1, mlp, 3),
        Layer("proj_out", "linear2", 1 + mlp, 1),
    ]


@cache
def layers_in_blocks(shape: FluxShape, fused: bool) -> tuple[Site, ...]:
    """All sites in the order of the blocks: modules as diffusers names them, or as Black Forest Labs fuses them."""
    found = []
    for blocks, bfl_blocks, count, layers in (
        ("transformer_blocks", "double_blocks", shape.double_blocks, double_block(shape.mlp_ratio)),
        ("single_transformer_blocks", "single_blocks", shape.single_blocks, single_block(shape.mlp_ratio)),
    ):
        for block in range(count):
            for layer in layers:
                name = f"{blocks}.{block}.{layer.name}"
                module, start = name, None
                if fused:
                    module = f"{bfl_blocks}.{block}.{layer.fused}"
                    start = None if layer.start is None else layer.start * shape.width
                found.append(Site(name, module, layer.reads * shape.width, layer.writes * shape.width, start))
    return tuple(found)

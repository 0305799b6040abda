"""FLUX's layers by name: diffusers' names, which sites carry, and Black Forest Labs' names, as ComfyUI has them.

Black Forest Labs fuses the layers that read the same input (q, k, v and, in single blocks, the first layer of the MLP)
into one matrix; there a site is a slice of its output rows.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import NamedTuple

from ..method.adapter import Site
from .architecture import Architecture, chosen

HEAD = 128  # numbers in an attention head; every FLUX.1 has this, the tiny one too


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


def sites(shape: FluxShape, preset: str, fused: bool) -> list[Site]:
    """The sites of a preset, as diffusers or as Black Forest Labs has the layers."""
    return chosen(shape.fused if fused else shape.places, preset)

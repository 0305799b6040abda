"""Where each weight of a diffusers model lies in the files of those who made it: Black Forest Labs' and LDM's names."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import UserError
from .keys import FluxShape, sites
from .weight_files import WeightFile


class Source(NamedTuple):
    """A tensor of a file, or some of its rows, that is a model's weight."""

    name: str
    rows: slice = slice(None)
    halves_swapped: bool = False  # the file has shift before scale, diffusers scale before shift


OUTSIDE_BLOCKS = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
DOUBLE_NORMS = {
    "norm_q": "img_attn.norm.query_norm",
    "norm_k": "img_attn.norm.key_norm",
    "norm_added_q": "txt_attn.norm.query_norm",
    "norm_added_k": "txt_attn.norm.key_norm",
}
SINGLE_NORMS = {"norm_q": "norm.query_norm", "norm_k": "norm.key_norm"}


def bfl_sources(shape: FluxShape) -> dict[str, Source]:
    """FluxTransformer2DModel's weights in Black Forest Labs' file."""
    found = {}
    for ours, theirs in OUTSIDE_BLOCKS.items():
        if shape.guidance or "guidance" not in ours:
            for kind in ("weight", "bias"):
                found[f"{ours}.{kind}"] = Source(f"{theirs}.{kind}", halves_swapped=ours == "norm_out.linear")
    for site in sites(shape, "all", fused=True):
        for kind in ("weight", "bias"):
            found[f"{site.name}.{kind}"] = Source(f"{site.module}.{kind}", site.rows)
    for ours, theirs, count, norms in (
        ("transformer_blocks", "double_blocks", shape.double_blocks, DOUBLE_NORMS),
        ("single_transformer_blocks", "single_blocks", shape.single_blocks, SINGLE_NORMS),
    ):
        for block in range(count):
            for norm, scale in norms.items():
                found[f"{ours}.{block}.attn.{norm}.weight"] = Source(f"{theirs}.{block}.{scale}.scale")
    return found


LDM = (  # in this order: what a later line looks for, an earlier one may have made
    ("mid_block.attentions.0.", "mid.attn_1."),
    ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."),
    ("group_norm.", "norm."),
    ("to_q.", "q."),
    ("to_k.", "k."),
    ("to_v.", "v."),
    ("to_out.0.", "proj_out."),
    ("conv_norm_out.", "norm_out."),
    ("conv_shortcut.", "nin_shortcut."),
    ("downsamplers.0.", "downsample."),
    ("upsamplers.0.", "upsample."),
    ("resnets.", "block."),
    ("down_blocks.", "down."),
)


def ldm_sources(model: nn.Module, levels: int) -> dict[str, Source]:
    """AutoencoderKL's weights in an autoencoder file of the LDM family, which counts the decoder's levels downwards."""
    found = {}
    for name in model.state_dict():
        theirs = name
        for ours, other in LDM:
            theirs = theirs.replace(ours, other)
        if "up_blocks." in theirs:
            before, _, rest = theirs.partition("up_blocks.")
            level, _, rest = rest.partition(".")
            theirs = f"{before}up.{levels - 1 - int(level)}.{rest}"
        found[name] = Source(theirs)
    return found


def fill(
    model: nn.Module,
    weights: WeightFile,
    sources: dict[str, Source],
    path: object,
    dtype: torch.dtype,
    device: torch.device | str,
    spare: tuple[str, ...] = (),
) -> None:
    """Give a model, which may be on the meta device, its weights one by one: at no time does a second copy exist.

    Every tensor of the file must be used, or be `spare`; one UserError tells of all that are missing or do not fit.
    """
    parameters = dict(model.named_parameters())
    sources = {name: source for name, source in sources.items() if name in parameters}
    assert sources.keys() == parameters.keys(), sources.keys() ^ parameters.keys()
    _check(path, expected_shapes(parameters, sources), weights.shapes, spare)
    for name, source in sources.items():
        tensor = weights.read(source.name, source.rows, dtype, device).reshape(parameters[name].shape)
        parent, _, leaf = name.rpartition(".")
        filled = nn.Parameter(swap_halves(tensor) if source.halves_swapped else tensor, requires_grad=False)
        setattr(model.get_submodule(parent), leaf, filled)


def swap_halves(tensor: Tensor) -> Tensor:
    """The second half of the rows before the first."""
    return torch.cat(tensor.chunk(2)[::-1])


def expected_shapes(parameters: dict[str, nn.Parameter], sources: dict[str, Source]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the file, put together from the weights that lie in it."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, source in sources.items():
        rows, *rest = parameters[name].shape
        expected[source.name] = (expected.get(source.name, (0,))[0] + rows, *rest)
    return expected


def _check(
    path: object, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], spare: tuple[str, ...]
) -> None:
    missing = sorted(expected.keys() - found.keys())
    strange = sorted(name for name in found.keys() - expected.keys() if not name.startswith(spare or ("\0",)))
    wrong = sorted(name for name in expected.keys() & found.keys() if not _fits(found[name], expected[name]))
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensors are missing ({', '.join(missing[:3])})")
    if strange:
        problems.append(f"{len(strange)} are not known ({', '.join(strange[:3])})")
    if wrong:
        shown = ", ".join(f"{name} is {list(found[name])}, not {list(expected[name])}" for name in wrong[:3])
        problems.append(f"{len(wrong)} have another shape ({shown})")
    if problems:
        raise UserError(f"{path} does not fit: {'; '.join(problems)}. It is of another model, or was cut by a tool.")


def _fits(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Attention in old autoencoders is a convolution of size 1: the same numbers with ones behind the shape."""
    return found[: len(expected)] == expected and math.prod(found[len(expected) :]) == 1

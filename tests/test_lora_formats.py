"""LoRAs in every key format: exact round trips, the key lists of the full FLUX.1-dev, other makers' names."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metalora.backbones.architecture import KEY_FORMATS, LoRA, check_lora, format_lora
from metalora.backbones.families.flux import FluxShape
from metalora.backbones.lora_reading import read_lora
from metalora.config import UserError

SMALL = FluxShape(8, 2, 2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True)
TINY = FluxShape(128, 2, 2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True)
DEV = FluxShape(3072, 19, 38, in_channels=64, joint_dim=4096, pooled_dim=768, guidance=True)
QKV = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v"
FUSED_QKV = "diffusion_model.double_blocks.0.img_attn.qkv"


def random_lora(shape: FluxShape) -> LoRA:
    return {
        site.name: (torch.randn(1, site.in_features), torch.randn(site.out_features, 1)) for site in shape.sites("all")
    }


def same(a: LoRA, b: LoRA) -> bool:
    return a.keys() == b.keys() and all(torch.equal(x, y) for n in a for x, y in zip(a[n], b[n], strict=True))


@st.composite
def loras(draw: st.DrawFn) -> LoRA:
    """Any subset of sites, ranks that differ from site to site, some ups still zero."""
    ranks = draw(st.lists(st.integers(0, 3), min_size=40, max_size=40))
    zero = draw(st.lists(st.booleans(), min_size=40, max_size=40))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return {
        site.name: (
            torch.randn(rank, site.in_features, generator=g),
            torch.randn(site.out_features, rank, generator=g) * (not is_zero),
        )
        for site, rank, is_zero in zip(SMALL.sites("all"), ranks, zero, strict=True)
        if rank
    }


@pytest.mark.parametrize("key_format", KEY_FORMATS)
@given(lora=loras())
@settings(deadline=None, max_examples=40)
def test_a_round_trip_through_every_key_format_is_exact(key_format: str, lora: LoRA):
    tensors = format_lora(lora, key_format, SMALL)
    if lora:
        check_lora(tensors, key_format, SMALL)
    back, unmatched = read_lora(tensors, SMALL)
    assert not unmatched
    assert same(back, lora)


SITE, LAYER = "transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn"
OLDER_DIFFUSERS = ("to_q.lora", "to_q_lora", "processor.to_q_lora", "to_q.lora.linear_layer")
AB, DOWN_UP = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")


@pytest.mark.parametrize(
    ("layer", "roles"),
    [
        (f"{LAYER}.to_q", AB),
        (f"{LAYER}.to_q", ("lora_A.default.weight", "lora_B.default.weight")),
        (f"{LAYER}.to_q", DOWN_UP),
        *((f"{LAYER}.{name}", ("down.weight", "up.weight")) for name in OLDER_DIFFUSERS),
        (f"base_model.model.{SITE}", AB),
        (f"base_model.model.{SITE}", ("lora_A.default_0.weight", "lora_B.default_0.weight")),
        (f"transformer.base_model.model.{SITE}", AB),
        (f"diffusion_model.{SITE}", AB),
        (f"model.diffusion_model.{SITE}", AB),
        (SITE, AB),
        ("lora_transformer_transformer_blocks_0_attn_to_q", DOWN_UP),
        ("lora_unet_transformer_blocks_0_attn_to_q", DOWN_UP),
    ],
)
def test_other_makers_names_are_understood(layer: str, roles: tuple[str, str]):
    down, up = torch.randn(2, 8), torch.randn(8, 2)
    back, unmatched = read_lora({f"{layer}.{roles[0]}": down, f"{layer}.{roles[1]}": up}, SMALL)
    assert not unmatched
    assert same(back, {SITE: (down, up)})


def test_what_is_empty_or_unknown_or_of_another_width_is_refused():
    with pytest.raises(UserError, match=r"takes 128 numbers, in flux-8x2x2 8.*another base"):
        read_lora(format_lora(random_lora(TINY), "diffusers", TINY), SMALL)
    with pytest.raises(UserError, match="empty"):
        check_lora({}, "diffusers", SMALL)
    with pytest.raises(UserError, match=r"'koyha'.*diffusers, bfl, kohya"):
        format_lora({}, "koyha", SMALL)
    with pytest.raises(UserError, match=r"transformer_blocks.5.*another base"):
        format_lora({"transformer_blocks.5.attn.to_q": (torch.zeros(1, 8), torch.zeros(8, 1))}, "bfl", SMALL)


def broken(key: str, tensor: Tensor | None) -> dict[str, Tensor]:
    tensors = format_lora(random_lora(SMALL), "bfl", SMALL)
    if tensor is None:
        del tensors[key]
    else:
        tensors[key] = tensor
    return tensors


@pytest.mark.parametrize(
    ("key", "tensor", "complaint"),
    [
        ("diffusion_model.double_blocks.7.img_mlp.0.lora_up.weight", torch.zeros(32, 1), "is unknown"),
        (f"{FUSED_QKV}.lora_mid.weight", torch.zeros(3, 3), "is unknown"),
        (f"{FUSED_QKV}.lora_up.weight", None, "is missing"),
        (f"{FUSED_QKV}.alpha", None, "is missing"),
        (f"{FUSED_QKV}.lora_up.weight", torch.zeros(24, 4), "do not fit a layer of 8 -> 24"),
        (f"{FUSED_QKV}.lora_down.weight", torch.zeros(3, 9), "do not fit a layer of 8 -> 24"),
        (f"{FUSED_QKV}.lora_up.weight", torch.full((24, 3), float("nan")), "is not finite"),
        (f"{FUSED_QKV}.alpha", torch.tensor(1.0), "not the rank 3"),
        (f"{FUSED_QKV}.lora_up.weight", torch.full((24, 3), 1e8), "adds numbers of up to"),
    ],
)
def test_a_lora_that_a_stock_loader_would_drop_in_silence_is_never_written(key, tensor, complaint):
    with pytest.raises(UserError, match=complaint):
        check_lora(broken(key, tensor), "bfl", SMALL)


@pytest.mark.parametrize("key_format", ["diffusers", "kohya"])
def test_diffusers_own_converter_reads_a_lora_of_the_full_width(key_format: str):
    from diffusers import FluxPipeline

    dev = FluxShape(3072, 1, 1, in_channels=64, joint_dim=4096, pooled_dim=768, guidance=True)
    lora = random_lora(dev)
    converted, unmatched = read_lora(FluxPipeline.lora_state_dict(format_lora(lora, key_format, dev)), dev)
    assert not unmatched
    assert same(converted, lora)


RECORDED = json.loads((Path(__file__).parent / "data" / "flux1_dev_keys.json").read_text())


def test_architectures_have_names():
    schnell = FluxShape(3072, 19, 38, 64, 4096, 768, guidance=False)
    small = FluxShape(256, 3, 5, 64, 64, 32, guidance=False)
    assert [s.name for s in (DEV, schnell, TINY, small)] == [
        "flux.1-dev",
        "flux.1-schnell",
        "flux-128x2x2",
        "flux-256x3x5-schnell",
    ]


def test_slices_cover_each_fused_layer_without_gap_or_overlap():
    covered: dict[str, int] = {}
    for site in DEV.fused:
        assert (site.start or 0) == covered.get(site.module, 0)
        covered[site.module] = covered.get(site.module, 0) + site.out_features
    for module, rows in covered.items():
        assert RECORDED["bfl"]["keys"][f"{module}.weight"][0] == rows


def test_sites_are_the_linear_layers_of_the_blocks_in_their_order_or_the_attention_projections_alone():
    linears = {name.removesuffix(".weight") for name, shape in RECORDED["diffusers"]["keys"].items() if len(shape) == 2}
    names = [site.name for site in DEV.sites("all")]
    assert set(names) == {name for name in linears if "transformer_blocks." in name}
    assert len(names) == 19 * 14 + 38 * 6
    assert names == [site.name for site in DEV.fused], "in both namings"
    blocks = [int(name.split(".")[1]) for name in names]
    assert blocks == sorted(blocks[: 19 * 14]) + sorted(blocks[19 * 14 :])
    attention = [site.name for site in DEV.sites("attention")]
    assert len(attention) == 19 * 8 + 38 * 3
    assert all(".attn." in name for name in attention)
    with pytest.raises(UserError, match=r"'atention'.*all, attention"):
        DEV.sites("atention")


@pytest.mark.parametrize("key_format", ["diffusers", "bfl"])
@pytest.mark.parametrize("preset", ["all", "attention"])
def test_every_key_and_shape_of_a_rank_1_lora_fits_the_full_flux(key_format: str, preset: str):
    prefix = {"diffusers": "transformer.", "bfl": "diffusion_model."}[key_format]
    recorded = RECORDED[key_format]["keys"]
    lora = {
        site.name: (torch.ones(1, site.in_features), torch.ones(site.out_features, 1)) for site in DEV.sites(preset)
    }
    tensors = format_lora(lora, key_format, DEV)
    modules = {key.removeprefix(prefix).rsplit(".lora_", 1)[0] for key in tensors if not key.endswith(".alpha")}
    assert all(key.startswith(prefix) and "lora_mid" not in key for key in tensors)
    down_name, up_name = ("lora_A", "lora_B") if key_format == "diffusers" else ("lora_down", "lora_up")
    for module in modules:
        down, up = (tensors[f"{prefix}{module}.{role}.weight"] for role in (down_name, up_name))
        assert [up.shape[0], down.shape[1]] == recorded[f"{module}.weight"]
        assert up.shape[1] == down.shape[0]

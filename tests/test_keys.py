"""Names between diffusers and Black Forest Labs, and the key lists of the full FLUX.1-dev."""

import json
from pathlib import Path

import pytest
import torch

from metalora.backbones.architecture import FluxShape
from metalora.backbones.lora_formats import format_lora
from metalora.config import UserError

DEV = FluxShape(3072, 19, 38, in_channels=64, joint_dim=4096, pooled_dim=768, guidance=True)
TINY = FluxShape(128, 2, 2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True)
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


def test_all_sites_are_all_linear_layers_of_the_blocks():
    linears = {name.removesuffix(".weight") for name, shape in RECORDED["diffusers"]["keys"].items() if len(shape) == 2}
    in_blocks = {name for name in linears if "transformer_blocks." in name}
    assert {site.name for site in DEV.sites("all")} == in_blocks
    assert len(in_blocks) == 19 * 14 + 38 * 6


def test_slices_cover_each_fused_layer_without_gap_or_overlap():
    covered: dict[str, int] = {}
    for site in DEV.fused:
        assert (site.start or 0) == covered.get(site.module, 0)
        covered[site.module] = covered.get(site.module, 0) + site.out_features
    for module, rows in covered.items():
        assert RECORDED["bfl"]["keys"][f"{module}.weight"][0] == rows


def test_the_attention_preset_holds_attention_projections_alone():
    names = [site.name for site in DEV.sites("attention")]
    assert len(names) == 19 * 8 + 38 * 3
    assert all(".attn." in name for name in names)


def test_sites_come_in_the_order_of_the_blocks_in_both_namings():
    assert [s.name for s in DEV.sites("all")] == [s.name for s in DEV.fused]
    blocks = [int(site.name.split(".")[1]) for site in DEV.sites("all")]
    assert blocks == sorted(blocks[: 19 * 14]) + sorted(blocks[19 * 14 :])


def test_an_unknown_preset_is_refused_with_the_known_ones():
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

"""One LoRA in every key format: exact round trips, other makers' variants, and what stock loaders make of our files."""

import itertools
import os
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metalora.backbones.architecture import PRESETS, FluxShape, chosen
from metalora.backbones.lora_formats import KEY_FORMATS, LoRA, check_lora, format_lora
from metalora.backbones.lora_reading import read_lora
from metalora.config import UserError

SMALL = FluxShape(8, 2, 2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True)
TINY = FluxShape(128, 2, 2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True)
QKV = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v"
FUSED_QKV = "diffusion_model.double_blocks.0.img_attn.qkv"


def random_lora(shape: FluxShape, preset: str = "all", rank: int = 1, seed: int = 0) -> LoRA:
    g = torch.Generator().manual_seed(seed)
    return {
        site.name: (torch.randn(rank, site.in_features, generator=g), torch.randn(site.out_features, rank, generator=g))
        for site in shape.sites(preset)
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
    back, unmatched = read_lora(format_lora(lora, key_format, SMALL), SMALL)
    assert not unmatched
    assert same(back, lora)


@pytest.mark.parametrize("key_format", KEY_FORMATS)
@pytest.mark.parametrize("preset", ["all", "attention"])
@pytest.mark.parametrize("untrained", [False, True], ids=["trained", "untrained"])
def test_presets_come_back_with_their_sites_even_if_nothing_was_learned(key_format: str, preset: str, untrained: bool):
    lora = random_lora(TINY, preset, rank=2)
    if untrained:
        lora = {name: (down, torch.zeros_like(up)) for name, (down, up) in lora.items()}
    tensors = format_lora(lora, key_format, TINY)
    check_lora(tensors, key_format, TINY)
    assert same(read_lora(tensors, TINY)[0], lora)


@given(lora=loras())
@settings(deadline=None, max_examples=5)
def test_a_fused_lora_does_what_its_parts_do(lora: LoRA):
    tensors = format_lora(lora, "bfl", SMALL)
    for site in SMALL.fused:
        stem = f"diffusion_model.{site.module}"
        if f"{stem}.lora_up.weight" in tensors:
            delta = (tensors[f"{stem}.lora_up.weight"] @ tensors[f"{stem}.lora_down.weight"])[site.rows]
            down, up = lora.get(site.name, (torch.zeros(1, site.in_features), torch.zeros(site.out_features, 1)))
            torch.testing.assert_close(delta, up @ down)


@pytest.mark.parametrize("key_format", ["bfl", "kohya"])
def test_alpha_equals_the_rank_and_no_middle_matrix_is_written(key_format: str):
    tensors = format_lora(random_lora(TINY, rank=2), key_format, TINY)
    for key, tensor in tensors.items():
        assert "lora_mid" not in key
        if key.endswith(".alpha"):
            assert tensor.item() == len(tensors[key.replace(".alpha", ".lora_down.weight")])


def test_a_lora_that_was_trained_fused_is_read_as_slices_of_its_up():
    down, up = torch.randn(6, 8), torch.randn(24, 6)
    lora, unmatched = read_lora({f"{FUSED_QKV}.lora_down.weight": down, f"{FUSED_QKV}.lora_up.weight": up}, SMALL)
    assert not unmatched
    assert list(lora) == list(QKV)
    assert torch.equal(
        torch.cat([lora[name][1] @ lora[name][0] for name in QKV]), torch.cat([u @ down for u in up.split(8)])
    )


@pytest.mark.parametrize(
    ("layer", "down", "up"),
    [
        ("transformer.transformer_blocks.0.attn.to_q", "lora_A.weight", "lora_B.weight"),
        ("transformer.transformer_blocks.0.attn.to_q", "lora_A.default.weight", "lora_B.default.weight"),
        ("transformer.transformer_blocks.0.attn.to_q", "lora_down.weight", "lora_up.weight"),
        ("transformer.transformer_blocks.0.attn.to_q", "lora.down.weight", "lora.up.weight"),
        ("base_model.model.transformer_blocks.0.attn.to_q", "lora_A.weight", "lora_B.weight"),
        ("base_model.model.transformer_blocks.0.attn.to_q", "lora_A.default_0.weight", "lora_B.default_0.weight"),
        ("transformer.base_model.model.transformer_blocks.0.attn.to_q", "lora_A.weight", "lora_B.weight"),
        ("diffusion_model.transformer_blocks.0.attn.to_q", "lora_A.weight", "lora_B.weight"),
        ("transformer_blocks.0.attn.to_q", "lora_A.weight", "lora_B.weight"),
        ("lora_transformer_transformer_blocks_0_attn_to_q", "lora_down.weight", "lora_up.weight"),
        ("lora_unet_transformer_blocks_0_attn_to_q", "lora_down.weight", "lora_up.weight"),
    ],
)
def test_other_makers_names_are_understood(layer: str, down: str, up: str):
    lora = {QKV[0]: (torch.randn(2, 8), torch.randn(8, 2))}
    back, unmatched = read_lora({f"{layer}.{down}": lora[QKV[0]][0], f"{layer}.{up}": lora[QKV[0]][1]}, SMALL)
    assert not unmatched
    assert same(back, lora)


@pytest.mark.parametrize("layer", [FUSED_QKV, "model." + FUSED_QKV, "lora_unet_double_blocks_0_img_attn_qkv"])
@pytest.mark.parametrize(("down", "up"), [("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")])
def test_fused_layers_are_understood_under_either_pair_of_names(layer: str, down: str, up: str):
    lora = {name: pair for name, pair in random_lora(SMALL).items() if name in QKV}
    ours = format_lora(lora, "bfl", SMALL)
    tensors = {
        f"{layer}.{down}": ours[f"{FUSED_QKV}.lora_down.weight"],
        f"{layer}.{up}": ours[f"{FUSED_QKV}.lora_up.weight"],
    }
    back, unmatched = read_lora(tensors, SMALL)
    assert not unmatched
    assert same(back, lora)


def test_alpha_is_honoured_and_half_precision_becomes_float32():
    down, up = torch.randn(4, 8).half(), torch.randn(8, 4).half()
    stem = "lora_unet_double_blocks_1_txt_attn_proj"
    lora, _ = read_lora(
        {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.0)}, SMALL
    )
    read_down, read_up = lora["transformer_blocks.1.attn.to_add_out"]
    assert read_down.dtype == read_up.dtype == torch.float32
    assert torch.equal(read_down, down.float())
    assert torch.equal(read_up, up.float() / 4)


def test_a_lora_of_another_width_is_refused():
    with pytest.raises(UserError, match=r"takes 128 numbers, in flux-8x2x2 8.*another base"):
        read_lora(format_lora(random_lora(TINY), "diffusers", TINY), SMALL)


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


def test_an_empty_lora_an_unknown_key_format_and_an_unknown_layer_are_refused():
    with pytest.raises(UserError, match="empty"):
        check_lora({}, "diffusers", SMALL)
    with pytest.raises(UserError, match=r"'koyha'.*diffusers, bfl, kohya"):
        format_lora({}, "koyha", SMALL)
    with pytest.raises(UserError, match=r"transformer_blocks.5.*another base"):
        format_lora({"transformer_blocks.5.attn.to_q": (torch.zeros(1, 8), torch.zeros(8, 1))}, "bfl", SMALL)


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    from metalora.backbones.tiny_flux import TinyFlux

    return FluxPipeline(
        FlowMatchEulerDiscreteScheduler(), None, None, None, None, None, TinyFlux().transformer("cpu", torch.float32)
    )


@pytest.mark.parametrize("preset", ["all", "attention"])
def test_diffusers_own_loader_takes_every_key_and_computes_the_same(pipeline, preset: str, caplog):
    lora = random_lora(TINY, preset, rank=2)
    before = {name: tensor.clone() for name, tensor in pipeline.transformer.state_dict().items()}
    pipeline.load_lora_weights(format_lora(lora, "diffusers", TINY), adapter_name="ours")
    try:
        wrapped = {name for name, _ in pipeline.transformer.named_modules() if name.endswith(".base_layer")}
        assert {name.removesuffix(".base_layer") for name in wrapped} == lora.keys()
        pipeline.fuse_lora()
        merged = pipeline.transformer.state_dict()
        for name, (down, up) in lora.items():
            torch.testing.assert_close(merged[f"{name}.base_layer.weight"], before[f"{name}.weight"] + up @ down)
    finally:
        pipeline.unfuse_lora()
        pipeline.unload_lora_weights()
    assert not [record for record in caplog.records if "unexpected keys" in record.getMessage()]


@pytest.mark.parametrize("key_format", ["diffusers", "kohya"])
def test_diffusers_own_converter_reads_a_lora_of_the_full_width(key_format: str):
    from diffusers import FluxPipeline

    dev = FluxShape(3072, 1, 1, in_channels=64, joint_dim=4096, pooled_dim=768, guidance=True)
    lora = random_lora(dev)
    converted, unmatched = read_lora(FluxPipeline.lora_state_dict(format_lora(lora, key_format, dev)), dev)
    assert not unmatched
    assert same(converted, lora)


@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no ComfyUI checkout")
def test_comfyuis_own_loader_takes_every_key_and_computes_the_same():
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    import comfy.cli_args

    comfy.cli_args.args.cpu = True  # before the next import, which looks for a GPU
    import comfy.lora
    import comfy.supported_models

    config = dict(image_model="flux", in_channels=16, out_channels=16, patch_size=2, vec_in_dim=32, context_in_dim=64)
    config |= dict(hidden_size=128, num_heads=1, mlp_ratio=4.0, depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56])
    model = comfy.supported_models.Flux(config | dict(theta=10000, qkv_bias=True, guidance_embed=True)).get_model({})
    weights, key_map = model.state_dict(), comfy.lora.model_lora_keys_unet(model, {})
    for key_format, preset in itertools.product(KEY_FORMATS, PRESETS):
        lora = random_lora(TINY, preset, rank=2)
        tensors = format_lora(lora, key_format, TINY)
        patches = comfy.lora.load_lora(tensors, key_map, log_missing=False)
        assert {key for patch in patches.values() for key in patch.loaded_keys} == tensors.keys()
        deltas: dict[str, Tensor] = {}
        for target, patch in patches.items():
            name, offset = (target, None) if isinstance(target, str) else target[:2]
            deltas.setdefault(name, torch.zeros(weights[name].shape))
            comfy.lora.calculate_weight([(1.0, patch, 1.0, offset, None)], deltas[name], name)
        for site in chosen(TINY.fused, preset):
            down, up = lora[site.name]
            torch.testing.assert_close(deltas[f"diffusion_model.{site.module}.weight"][site.rows], up @ down)

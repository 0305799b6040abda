"""FLUX's transformer in single files: both namings, fp8, and what is wrong with a file that does not fit."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from metalora.backbones.checkpoint import flux_shape_of, read_flux_transformer, write_bfl_transformer
from metalora.backbones.conversions import bfl_sources, expected_shapes, swap_halves
from metalora.backbones.family import pack, positions, unpack
from metalora.backbones.flux_configs import transformer_config
from metalora.backbones.keys import FluxShape
from metalora.backbones.tiny_flux import TinyFlux
from metalora.config import UserError


@pytest.fixture(scope="module")
def tiny():
    return TinyFlux().transformer("cpu", torch.float32)


@pytest.fixture
def bfl(tiny, tmp_path: Path) -> Path:
    write_bfl_transformer(tiny, tmp_path / "flux.safetensors")
    return tmp_path / "flux.safetensors"


def rewritten(path: Path, tensors: dict[str, Tensor]) -> Path:
    path = path.with_name("rewritten.safetensors")
    save_file(tensors, path)
    return path


def assert_same(model, other) -> None:
    a, b = model.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]


def test_a_round_trip_through_black_forest_labs_names_is_bit_exact(tiny, bfl: Path):
    assert_same(read_flux_transformer(bfl, torch.float32, "cpu"), tiny)


def test_the_architecture_is_read_from_the_header_in_either_naming(tiny, bfl: Path, tmp_path: Path):
    save_file(tiny.state_dict(), tmp_path / "diffusers.safetensors")
    assert flux_shape_of(bfl) == flux_shape_of(tmp_path / "diffusers.safetensors") == TinyFlux.architecture


def test_diffusers_own_converter_finds_the_same_weights_in_a_file_of_the_full_width():
    """One block of each kind of FLUX.1-dev, one column wide: the converter looks at names and rows alone."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    recorded = json.loads((Path(__file__).parent / "data" / "flux1_dev_keys.json").read_text())["bfl"]["keys"]
    of_one_block = {name: size for name, size in recorded.items() if "_blocks." not in name or "_blocks.0." in name}
    tensors = {name: torch.randn(size[0], 1) for name, size in of_one_block.items()}
    theirs = convert_flux_transformer_checkpoint_to_diffusers(dict(tensors))
    sources = bfl_sources(FluxShape(3072, 1, 1, in_channels=64, joint_dim=4096, pooled_dim=768, guidance=True))
    assert sources.keys() == theirs.keys()
    for name, source in sources.items():
        ours = tensors[source.name][source.rows]
        assert torch.equal(swap_halves(ours) if source.halves_swapped else ours, theirs[name]), name


def test_the_full_fluxs_file_has_exactly_the_recorded_tensors():
    from diffusers import FluxTransformer2DModel

    dev = FluxShape(3072, 19, 38, in_channels=64, joint_dim=4096, pooled_dim=768, guidance=True)
    with torch.device("meta"):
        parameters = dict(FluxTransformer2DModel(**transformer_config(dev)).named_parameters())
    recorded = json.loads((Path(__file__).parent / "data" / "flux1_dev_keys.json").read_text())
    assert {name: list(weight.shape) for name, weight in parameters.items()} == recorded["diffusers"]["keys"]
    expected = expected_shapes(parameters, bfl_sources(dev))
    assert {name: list(shape) for name, shape in expected.items()} == recorded["bfl"]["keys"]


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
def test_prefixed_names_and_all_in_one_checkpoints_are_read(tiny, bfl: Path, prefix: str):
    tensors = {prefix + name: tensor for name, tensor in load_file(bfl).items()}
    path = rewritten(bfl, tensors | {"vae.encoder.conv_in.weight": torch.zeros(1)})
    assert_same(read_flux_transformer(path, torch.float32, "cpu"), tiny)


def test_diffusers_names_are_read(tiny, tmp_path: Path):
    save_file(tiny.state_dict(), tmp_path / "diffusers.safetensors")
    assert_same(read_flux_transformer(tmp_path / "diffusers.safetensors", torch.float32, "cpu"), tiny)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_plain_fp8_weights_are_read_as_they_are(bfl: Path, kind: torch.dtype):
    path = rewritten(bfl, {name: tensor.to(kind) for name, tensor in load_file(bfl).items()})
    loaded = read_flux_transformer(path, torch.bfloat16, "cpu")
    stored = load_file(path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    qkv = stored["double_blocks.1.txt_attn.qkv.weight"].to(torch.bfloat16)
    attention = loaded.transformer_blocks[1].attn
    parts = (attention.add_q_proj, attention.add_k_proj, attention.add_v_proj)
    assert torch.equal(torch.cat([layer.weight for layer in parts]), qkv)


@pytest.mark.parametrize(
    ("scale_name", "extras"),
    [
        ("scale_weight", {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}),
        ("weight_scale", {}),
    ],
)
def test_scaled_fp8_weights_are_multiplied_by_their_scale(tiny, bfl: Path, scale_name: str, extras):
    tensors = dict(extras)
    for name, tensor in load_file(bfl).items():
        if tensor.ndim == 2 and "_blocks." in name:
            scale = tensor.abs().max() / 448
            layer = name.removesuffix(".weight")
            tensors[name] = (tensor / scale).to(torch.float8_e4m3fn)
            tensors[f"{layer}.{scale_name}"] = scale
            tensors[f"{layer}.{'scale_input' if scale_name == 'scale_weight' else 'input_scale'}"] = torch.ones(())
        else:
            tensors[name] = tensor
    loaded = read_flux_transformer(rewritten(bfl, tensors), torch.float32, "cpu").state_dict()
    for name, weight in tiny.state_dict().items():
        # E4M3 has 3 bits after the point: half a step is 1/16 of a number, or 2**-10 of what stands for 448 below 2**-6
        torch.testing.assert_close(loaded[name], weight, rtol=1 / 15, atol=float(weight.abs().max()) * 1e-3)


def test_nothing_is_left_on_the_meta_device_and_the_file_may_go(tiny, bfl: Path):
    model = read_flux_transformer(bfl, torch.float32, "cpu")
    bfl.write_bytes(b"")  # weights that were views of the file would be gone, and the process with them
    assert not [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    assert_same(model, tiny)


def test_all_that_is_wrong_with_a_file_is_said_at_once(bfl: Path):
    tensors = load_file(bfl)
    del tensors["double_blocks.0.img_mlp.0.bias"], tensors["txt_in.bias"]
    tensors["single_blocks.1.linear1.weight"] = torch.zeros(7, 128)
    tensors["double_blocks.0.img_mlp.0.absmax"] = torch.zeros(3)
    with pytest.raises(UserError) as caught:
        read_flux_transformer(rewritten(bfl, tensors), torch.float32, "cpu")
    text = str(caught.value)
    assert "2 tensors are missing (double_blocks.0.img_mlp.0.bias, txt_in.bias)" in text
    assert "1 are not known (double_blocks.0.img_mlp.0.absmax)" in text
    assert "single_blocks.1.linear1.weight is [7, 128], not [896, 128]" in text


def test_other_files_are_refused_with_what_they_lack(bfl: Path, tmp_path: Path):
    with pytest.raises(UserError, match="holds no FLUX transformer: none of its 1 tensors"):
        read_flux_transformer(rewritten(bfl, {"x": torch.zeros(1)}), torch.float32, "cpu")
    (tmp_path / "text").write_text("no weights at all")
    with pytest.raises(UserError, match="not a safetensors file"):
        read_flux_transformer(tmp_path / "text", torch.float32, "cpu")
    cut = tmp_path / "cut"
    cut.write_bytes(bfl.read_bytes()[:-1000])
    with pytest.raises(UserError, match="copy it again"):
        read_flux_transformer(cut, torch.float32, "cpu")
    with pytest.raises(UserError, match="does not exist"):
        read_flux_transformer(tmp_path / "nowhere", torch.float32, "cpu")


def test_variants_with_another_image_as_input_are_refused(bfl: Path):
    tensors = load_file(bfl)
    tensors["img_in.weight"] = torch.zeros(128, 384)
    with pytest.raises(UserError, match=r"384 numbers a token and returns 64.*Fill"):
        flux_shape_of(rewritten(bfl, tensors))


@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no ComfyUI checkout")
@torch.no_grad()
def test_comfyuis_own_flux_computes_the_same_from_the_file(tiny, bfl: Path):
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    import comfy.cli_args

    comfy.cli_args.args.cpu = True  # before the next import, which looks for a GPU
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    config = dict(in_channels=16, out_channels=16, patch_size=2, vec_in_dim=32, context_in_dim=64, hidden_size=128)
    config |= dict(num_heads=1, mlp_ratio=4.0, depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56], theta=10000)
    theirs = Flux(**config, qkv_bias=True, guidance_embed=True, operations=comfy.ops.disable_weight_init)
    theirs.load_state_dict(load_file(bfl))  # strictly: no tensor is missing or unknown
    latents, text, pooled = torch.randn(2, 16, 8, 12), torch.randn(2, 9, 64), torch.randn(2, 32)
    t, guidance = torch.tensor([0.3, 0.9]), torch.tensor([1.0, 3.5])
    predicted = tiny(
        hidden_states=pack(latents),
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=t,
        guidance=guidance,
        img_ids=positions(4, 6),
        txt_ids=torch.zeros(9, 3),
    ).sample
    expected = theirs(latents, t, text, pooled, guidance)
    torch.testing.assert_close(unpack(predicted, 8, 12), expected, rtol=1e-3, atol=1e-3)

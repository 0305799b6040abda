"""LoRAs of any maker: read as diffusers and PEFT read them, left out with a notice, or refused by their true name."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lora_makers import MAKERS, differences, pairs
from loras_of_bases import R, Tensors, base_pipeline
from safetensors.torch import save_file

from metalora.backbones.architecture import LoRA, format_lora
from metalora.backbones.families.flux import FluxShape
from metalora.backbones.lora_products import declared_in
from metalora.backbones.lora_reading import read_lora
from metalora.backbones.pipeline import PipelineBackbone
from metalora.cli import main
from metalora.config import UserError
from metalora.jobs.lora import load_lora

SMALL = FluxShape(8, 2, 2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True)
BACKBONE: Any = SimpleNamespace(architecture=SMALL, name=SMALL.name)
Q = "transformer_blocks.0.attn.to_q"
A, B = f"transformer.{Q}.lora_A.weight", f"transformer.{Q}.lora_B.weight"
LORA = pairs(SMALL)


def delta(lora: LoRA, name: str) -> torch.Tensor:
    down, up = lora[name]
    return up @ down


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS)
def test_every_makers_file_adds_what_its_own_reader_adds(maker: str, tmp_path: Path):
    count, most, largest = differences(MAKERS[maker][2](tmp_path))
    assert count >= 8
    assert most < 1e-6 * largest


def test_the_docs_have_a_row_for_every_maker():
    page = (Path(__file__).parents[1] / "docs" / "loras.md").read_text(encoding="utf-8")
    assert all(f"| {maker} | {layout} |" in page for maker, (layout, _, _) in MAKERS.items())


def test_what_z_images_makers_fuse_is_read_as_its_slices():
    _, architecture = base_pipeline("z-image")
    stem, (down, up) = "diffusion_model.layers.1.attention", (torch.randn(2, 64), torch.randn(192, 2))
    tensors = {f"{stem}.qkv.lora_down.weight": down, f"{stem}.qkv.lora_up.weight": up}
    tensors |= {f"{stem}.out.lora_down.weight": down, f"{stem}.out.lora_up.weight": up[:64]}
    lora, left = read_lora(tensors, architecture)
    assert not left
    names = ("to_q", "to_k", "to_v", "to_out.0")
    for name, rows in zip(names, ((0, 64), (64, 128), (128, 192), (0, 64)), strict=True):
        assert torch.equal(delta(lora, f"layers.1.attention.{name}"), (up @ down)[slice(*rows)]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("size", [(), (1,), (1, 1)])
def test_alpha_is_one_number_of_any_kind(dtype: torch.dtype, size: tuple[int, ...]):
    lora, _ = read_lora(LORA | {f"transformer.{Q}.alpha": torch.full(size, 2, dtype=dtype)}, SMALL)
    torch.testing.assert_close(delta(lora, Q), LORA[B] @ LORA[A] * 2 / R)


def test_rslora_is_what_peft_takes_for_it():
    configuration = {"lora_adapter_metadata": json.dumps({"r": R, "lora_alpha": 2, "use_rslora": 1})}
    lora, _ = read_lora(LORA, SMALL, declared_in(configuration, None))
    torch.testing.assert_close(delta(lora, Q), LORA[B] @ LORA[A] * 2 / R**0.5)


def test_an_adapter_config_counts_beside_peft_files_only(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": R, "lora_alpha": 12}))
    save_file(LORA, tmp_path / "adapter_model.safetensors")
    save_file(LORA, tmp_path / "other.safetensors")
    save_file(
        {key.replace("transformer.", "base_model.model.", 1): t for key, t in LORA.items()}, tmp_path / "p.safetensors"
    )
    for name, times in (("adapter_model", 3), ("p", 3), ("other", 1)):
        lora, said = load_lora(tmp_path / f"{name}.safetensors", BACKBONE)
        torch.testing.assert_close(delta(lora, Q), LORA[B] @ LORA[A] * times)
        assert not said
    (tmp_path / "adapter_config.json").unlink()
    _, said = load_lora(tmp_path / "p.safetensors", BACKBONE)
    assert said == ["p.safetensors: no adapter_config.json lies beside it, so alpha is taken to be the rank"]


@pytest.mark.parametrize(
    "config",
    ["{", "[]", "null", '{"transformer.r": "4"}', '{"transformer.lora_alpha": null}', '{"transformer.lora_alpha": NaN}',
     '{"transformer.r": 0}', '{"transformer.rank_pattern": [1]}', '{"transformer.alpha_pattern": {"(a+)+": 2}}',
     '{"transformer.alpha_pattern": {"(": 2}}', '{"transformer.alpha_pattern": {"to_q": [2]}}', "[" * 100_000,
     '{"transformer.r": 16}', '{"transformer.use_dora": true}', '{"transformer.use_dora": 1}',
     '{"transformer.init_lora_weights": "pissa_niter_4"}', '{"transformer.init_lora_weights": "olora"}'],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_refused(config: str):
    with pytest.raises(UserError):
        read_lora(LORA, SMALL, declared_in({"lora_adapter_metadata": config}, None))


def test_lokr_and_loha_of_a_high_rank_are_exact_too():
    g = torch.Generator().manual_seed(0)
    w1, w2 = torch.randn(4, 2, generator=g), torch.randn(2, 4, generator=g)
    lora, _ = read_lora({f"diffusion_model.{Q}.lokr_w1": w1, f"diffusion_model.{Q}.lokr_w2": w2,
                         f"diffusion_model.{Q}.alpha": torch.tensor(1e5)}, SMALL)  # fmt: skip
    torch.testing.assert_close(delta(lora, Q), torch.kron(w1, w2))
    for rank in (1, 2, 5):
        factors = [torch.randn(*size, generator=g) for size in ((8, rank), (rank, 8)) * 2]
        names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        lora, _ = read_lora(
            {f"lycoris_{Q.replace('.', '_')}.{n}": t for n, t in zip(names, factors, strict=True)}, SMALL
        )
        torch.testing.assert_close(delta(lora, Q), (factors[0] @ factors[1]) * (factors[2] @ factors[3]))


def test_whole_differences_are_read_and_a_layers_two_loras_add_up():
    whole = torch.randn(24, 8)
    tensors = {"diffusion_model.double_blocks.0.img_attn.qkv.diff": whole} | {A: LORA[A], B: LORA[B]}
    lora, _ = read_lora(tensors, SMALL)
    torch.testing.assert_close(delta(lora, Q), whole[:8] + LORA[B] @ LORA[A])
    torch.testing.assert_close(delta(lora, Q.replace("to_q", "to_k")), whole[8:16])


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "text-encoder layers"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.dora_scale", "text-encoder layers"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", "text-encoder layers"),
        ("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.lora_up", "text-encoder layers"),
        ("transformer.x_embedder.lora_A.weight", "embedder and output layers"),
        ("transformer.proj_out.lora_B.weight", "embedder and output layers"),
        ("diffusion_model.final_layer.adaLN_modulation.1.lora_up.weight", "embedder and output layers"),
        ("lora_unet_time_in_in_layer.lora_down.weight", "embedder and output layers"),
        ("lora_transformer_time_text_embed_text_embedder_linear_1.alpha", "embedder and output layers"),
        (f"transformer.{Q}.lora_B.bias", "biases"),
        ("diffusion_model.double_blocks.0.img_attn.qkv.diff_b", "biases"),
        ("diffusion_model.double_blocks.0.img_attn.norm.key_norm.diff", "norms"),
        ("bundle_emb.ada.clip_l", "embeddings of words"),
        ("emb_params", "embeddings of words"),
        ("something.else", "tensors of unknown names"),
    ],
)  # fmt: skip
def test_what_the_blocks_cannot_take_is_left_out_and_said(tmp_path: Path, key: str, part: str):
    whole = sum(tensor.numel() for tensor in LORA.values())
    save_file(LORA | {key: torch.randn(1, 8)}, tmp_path / "ada.safetensors")
    lora, said = load_lora(tmp_path / "ada.safetensors", BACKBONE)
    assert len(lora) == len(LORA) / 2
    share = f"{8 / (whole + 8):.1%}"
    assert said == [f"ada.safetensors: left out {part}: 1 layer, {share} of the file's numbers, such as {key}"]
    save_file({key: torch.randn(1, 8)}, tmp_path / "only.safetensors")
    with pytest.raises(UserError, match=part if "unknown" not in part else "no LoRA of this base"):
        load_lora(tmp_path / "only.safetensors", BACKBONE)


@pytest.mark.parametrize(
    ("key", "size", "named"),
    [
        (f"transformer.{Q}.lora_magnitude_vector", (8,), "DoRA"),
        (f"lora_transformer_{Q.replace('.', '_')}.dora_scale", (8, 1), "DoRA"),
        ("lora_unet_double_blocks_0_img_attn_qkv.oft_blocks", (2, 4, 4), "OFT"),
        (f"diffusion_model.{Q}.a1.weight", (8, 2), "GLoRA"),
        (f"base_model.model.{Q}.vera_lambda_b", (8,), "VeRA"),
        (f"base_model.model.{Q}.vblora_logits_A", (4, 2, 8), "VB-LoRA"),
        (f"base_model.model.{Q}.hra_u", (8, 4), "HRA"),
        (f"transformer.{Q}.lora_mid.weight", (4, 4), "Tucker"),
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 2048), "an SDXL"),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight", (4, 768),
         "a Stable Diffusion 1.5"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.lora_down.weight", (4, 640), "a Stable Diffusion"),
        ("diffusion_model.blocks.0.cross_attn.k.lora_A.weight", (4, 5120), "a Wan"),
        ("lora_unet_blocks_0_self_attn_q.lora_down.weight", (4, 5120), "a Wan"),
        ("diffusion_model.layers.0.attention.to_q.lora_A.weight", (4, 3840), "a Z-Image"),
        ("transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", (4, 8), "a Qwen-Image"),
        ("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight", (4, 8), "a FLUX.2"),
        ("diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight", (4, 8), "a Stable Diffusion 3"),
        ("transformer.transformer_blocks.18.attn.to_q.lora_A.weight", (4, 8), "has 2 double blocks"),
        ("lora_unet_single_blocks_37_linear1.alpha", (), "has 2 single blocks"),
        ("transformer.x_embedder.lora_A.weight", (4, 128), "control LoRA"),
        ("diffusion_model.distilled_guidance_layer.in_proj.lora_A.weight", (4, 64), "a Chroma"),
    ],
)  # fmt: skip
def test_other_methods_and_other_bases_are_refused_under_their_names(key: str, size: tuple[int, ...], named: str):
    for tensors in (LORA | {key: torch.randn(size)}, {key: torch.randn(size)}):
        with pytest.raises(UserError, match=named):
            read_lora(tensors, SMALL)


def test_flux_2_is_known_by_its_shapes_where_its_names_are_the_same():
    stem = "lora_unet_single_blocks_0_linear1"
    with pytest.raises(UserError, match=r"looks like a FLUX\.2"):
        read_lora({f"{stem}.lora_down.weight": torch.randn(4, 8), f"{stem}.lora_up.weight": torch.randn(72, 4)}, SMALL)


nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({A: torch.full((R, 8), nan)}, "not finite"),
        ({B: torch.full((8, R), inf)}, "not finite"),
        ({B: LORA[B] * 1e30}, "not finite"),
        ({A: LORA[A] * 1e30, B: LORA[B] * 1e30}, "not finite"),
        ({B: LORA[B].double() * 1e200}, "not finite"),
        ({f"transformer.{Q}.alpha": torch.tensor(nan)}, "is nan"),
        ({f"transformer.{Q}.alpha": torch.tensor(1e25)}, "not finite"),
        ({f"transformer.{Q}.alpha": torch.ones(3)}, "expected one number"),
        ({A: torch.zeros(0, 8), B: torch.zeros(8, 0)}, "expected a matrix"),
        ({A: torch.ones(R, 8, dtype=torch.int8)}, "not floating-point"),
        ({A: torch.ones(R, 8, dtype=torch.complex64)}, "not floating-point"),
        ({A: torch.zeros(R, 9)}, "do not fit a layer of 8 -> 8"),
        ({B: torch.zeros(8, R + 1)}, "do not fit a layer of 8 -> 8"),
        ({A: torch.zeros(R)}, "expected a matrix"),
        ({A.replace("lora_A", "lora_A.other"): torch.zeros(R, 8)}, "two LoRAs"),
        ({A.replace("transformer.", "diffusion_model.", 1): torch.zeros(R, 8),
          B.replace("transformer.", "diffusion_model.", 1): torch.zeros(8, R)}, "twice"),
        ({f"transformer.{Q}.lokr_w1": torch.ones(2, 2), f"transformer.{Q}.lokr_w2": torch.ones(4, 4)}, "at once"),
        ({f"transformer.{Q}.diff": torch.ones(8, 8)}, "at once"),
    ],
)  # fmt: skip
def test_what_is_not_finite_or_not_whole_is_refused_by_the_layers_name(changed: Tensors, complaint: str):
    with pytest.raises(UserError, match=rf"{Q}(?s:.*){complaint}"):
        read_lora(LORA | changed, SMALL)


def test_half_a_layer_is_damage_half_an_unknown_file_an_empty_one_and_zeros_are_no_loras(tmp_path: Path):
    with pytest.raises(UserError, match=rf"{Q}.*has no up"):
        read_lora({key: tensor for key, tensor in LORA.items() if key != B}, SMALL)
    with pytest.raises(UserError, match="is not understood: 1 tensors such as strange"):
        read_lora(LORA | {"strange": torch.zeros(10_000)}, SMALL)
    stem = "lora_unet_double_blocks_0_img_attn_qkv.lora"
    zeros = {f"{stem}_down.weight": torch.zeros(3, 8), f"{stem}_up.weight": torch.zeros(24, 3)}
    no_alpha = LORA | {f"{key.removesuffix('.lora_A.weight')}.alpha": torch.tensor(0.0) for key in LORA if "_A" in key}
    for tensors, said in (({}, "is empty"), (zeros, "are zero"), (no_alpha, "are zero")):
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(UserError, match=said):
            load_lora(tmp_path / "x.safetensors", BACKBONE)


@pytest.mark.parametrize(
    "role",
    ["lora_A.weight_scale", "lora_A.scale_weight", "lora_E", "lora_latent_mapping.weight", "scalar", "scale",
     "magnitude"],
)  # fmt: skip
def test_what_nobody_knows_beside_a_layers_matrices_is_not_left_out(role: str):
    """fp8 with scales, AdaLoRA, LoRA-XS, LyCORIS' scalar, ...: the matrices alone would be of another strength."""
    with pytest.raises(UserError, match=rf"{Q} also has {role}"):
        read_lora(LORA | {f"transformer.{Q}.{role}": torch.ones(1)}, SMALL)


def test_a_lokr_too_large_for_memory_is_refused_before_it_is_made():
    dev = FluxShape(3072, 19, 38, in_channels=64, joint_dim=4096, pooled_dim=768, guidance=True)
    whole = torch.zeros(1).expand(16, 16), torch.zeros(1)
    tensors = {}
    for site in dev.sites("all"):
        tensors[f"lycoris_{site.name.replace('.', '_')}.lokr_w1"] = whole[0]
        w2 = whole[1].expand(site.out_features // 16, site.in_features // 16)
        tensors[f"lycoris_{site.name.replace('.', '_')}.lokr_w2"] = w2
    with pytest.raises(UserError, match=r"take \d+ GB of memory"):
        read_lora(tensors, dev)


def test_one_bad_file_does_not_stop_from_loras(tiny: PipelineBackbone, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "loras").mkdir()
    good = {}
    for name in ("ada", "bob"):
        good = format_lora(
            {key: (torch.randn(2, i), torch.randn(o, 2)) for key, i, o in layers(tiny)}, "bfl", tiny.architecture
        )
        save_file(good, tmp_path / "loras" / f"{name}.safetensors")
    first = next(key for key in good if "lora_up" in key)
    save_file(good | {first: good[first] * nan}, tmp_path / "loras" / "a-nan.safetensors")
    save_file({"lora_te1_x.lora_down.weight": torch.zeros(1, 8)}, tmp_path / "loras" / "text.safetensors")
    (tmp_path / "loras" / "cut.safetensors").write_bytes(b"12345678")
    command = ["meta-down", "from-loras", str(tmp_path / "loras"), "--backbone", "tiny", "--meta-rank", "2"]
    assert main([*command, "--out", str(tmp_path / "out.safetensors")]) == 0
    said = capsys.readouterr()
    assert "distilled 2 LoRAs" in said.out
    assert "skipped 3 files" in said.out
    for sentence in (
        "skipped a-nan.safetensors",
        first.removesuffix(".weight"),
        "text-encoder",
        "skipped cut.safetensors",
    ):
        assert sentence in said.err
    (tmp_path / "loras" / "bob.safetensors").unlink()
    assert main([*command, "--out", str(tmp_path / "none.safetensors")]) == 1
    assert "1 of the 4 files" in capsys.readouterr().err


def layers(backbone: PipelineBackbone) -> list[tuple[str, int, int]]:
    return [(site.name, site.in_features, site.out_features) for site in backbone.sites("all")]

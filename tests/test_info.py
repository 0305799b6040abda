"""What `info`, `merge` and `meta-down inspect` say of a file: what it is, or what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import meta_down_file
from safetensors.torch import save_file

from metalora.backbones.families.flux import FluxShape
from metalora.backbones.pipeline import PipelineBackbone
from metalora.cli import main
from metalora.config import UserError
from metalora.jobs.info import describe
from metalora.jobs.lora import merge_adapter
from metalora.store import files

SMALL = FluxShape(8, 2, 2, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True)
Q = "transformer_blocks.0.attn.to_q"
nan = float("nan")


def test_info_says_what_each_file_is(personalize, tiny: PipelineBackbone, tmp_path: Path):
    source = meta_down_file(tiny, tmp_path / "woman.safetensors")
    personalize(tmp_path / "ada.safetensors", meta_down=str(source))
    assert "Meta-Down" in describe(source)
    assert "class: woman" in describe(tmp_path / "ada.adapter.safetensors")
    described = describe(tmp_path / "ada.safetensors")
    assert "finished LoRA" in described
    assert "steps 30" in described


@pytest.mark.parametrize(
    ("keys", "kind", "said"),
    [
        (["transformer.transformer_blocks.0.attn.to_q.lora.down.weight"], None, "a LoRA of another maker, rank 4"),
        (["transformer.transformer_blocks.0.attn.processor.to_q_lora.up.weight"], None, "a LoRA of another maker"),
        (["unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"], None,
         "it looks like a Stable Diffusion LoRA"),
        (["lora_unet_double_blocks_0_img_attn_qkv.lokr_w1"], None, "a LoKr of another maker"),
        (["transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector"], None, "a DoRA of another maker"),
        (["transformer_blocks.0.attn.to_q.weight.exp_avg"], None, "the state of an optimizer"),
        (["state.0.exp_avg", "transformer_blocks.0.attn.to_q.weight"], None, "the state of an optimizer"),
        (["transformer_blocks.0.attn.to_q.weight", "proj_out.weight"], None, "a FLUX checkpoint"),
        (["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], None, "a FLUX checkpoint"),
        (["transformer_blocks.0.attn.to_q.down"], "checkpoint", "checkpoint of meta-train"),
        (["transformer_blocks.0.attn.to_q.down"], "state", "saved state of a stopped run"),
        (["transformer_blocks.0.attn.to_q.something"], None, "not a file of this project"),
    ],
)  # fmt: skip
def test_info_names_what_a_file_is(tmp_path: Path, keys: list[str], kind: str | None, said: str):
    path = tmp_path / "x.safetensors"
    save_file({key: torch.zeros(4, 8) for key in keys}, path, {"metalora.kind": kind} if kind else None)
    assert said in describe(path)


@pytest.mark.parametrize(
    ("metadata", "tensors"),
    [
        ({"scale": None}, {}), ({"scale": "x"}, {}), ({"scale": "nan"}, {}),
        ({"shape": None}, {}), ({"shape": "{"}, {}), ({"shape": '{"width": 8}'}, {}), ({"shape": "[]"}, {}),
        ({"shape": "[" * 100_000}, {}), ({"double_blocks": 10**9}, {}), ({"width": -8}, {}), ({"width": "8"}, {}),
        ({}, {f"{Q}.down": None}), ({}, {f"{Q}.up": None}), ({}, {f"{Q}.down": torch.zeros(4)}),
        ({}, {f"{Q}.down": torch.zeros(3, 8)}), ({}, {f"{Q}.mid": torch.zeros(2, 3)}),
        ({}, {f"{Q}.up": torch.zeros(8, 0)}), ({}, {f"{Q}.up": torch.full((8, 1), nan)}),
        ({}, {f"{Q}.up": torch.ones(8, 1, dtype=torch.int32)}), ({}, {f"{Q}.up": torch.full((8, 1), 1e30)}),
        ({}, {f"{Q}.strange": torch.zeros(1)}),
    ],
)  # fmt: skip
def test_merge_says_what_is_wrong_with_a_damaged_adapter(
    tmp_path: Path, metadata: dict[str, Any], tensors: dict[str, Any]
):
    path, out = tmp_path / "ada.adapter.safetensors", tmp_path / "ada.safetensors"
    shape = {**vars(SMALL), **{key: value for key, value in metadata.items() if key in vars(SMALL)}}
    written = {"scale": "1", "shape": json.dumps(shape), "base": SMALL.name, "kind": "adapter"}
    written |= {key: value for key, value in metadata.items() if key in written}
    whole = {f"{Q}.down": torch.randn(4, 8), f"{Q}.mid": torch.randn(1, 4), f"{Q}.up": torch.randn(8, 1)} | tensors
    save_file(
        {key: tensor for key, tensor in whole.items() if tensor is not None},
        path,
        {f"metalora.{key}": value for key, value in written.items() if value is not None},
    )
    with pytest.raises(UserError):
        list(merge_adapter(path, out, "diffusers"))
    assert not out.exists()


def test_inspect_says_what_is_wrong_with_a_damaged_meta_down(tmp_path: Path, capsys: pytest.CaptureFixture):
    for number, down in enumerate(
        (torch.zeros(4), torch.zeros(0, 8), torch.full((4, 8), nan), torch.zeros(4, 8).int(), None)
    ):
        path = tmp_path / f"{number}.safetensors"
        tensors = {"other": torch.zeros(1)} if down is None else {f"{Q}.down": down}
        save_file(tensors, path, {"metalora.kind": "meta-down"})
        assert main(["meta-down", "inspect", str(path)]) == 1
        assert "damaged" in capsys.readouterr().err
    files.write(path, {f"{Q}.down": torch.zeros(4, 8)}, "meta-down", {})
    assert main(["meta-down", "inspect", str(path)]) == 0
    assert "nan" not in capsys.readouterr().out

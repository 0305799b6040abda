"""What other nodes make of a MODEL, in a running ComfyUI, is trained on as it computes.

GGUF needs city96's pack: in custom_nodes/ComfyUI-GGUF of the checkout, or where COMFYUI_GGUF_PATH says.
"""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from comfy_files import BFL, as_they_name, scaled_fp8
from comfyui import needs_comfyui
from comfyui_server import Graph, Server, node, serving, training
from graphs import OLDEST
from safetensors.torch import load_file, save_file
from torch import Tensor

from metalora.backbones.pipeline_folder import Miniature

pytestmark = [needs_comfyui, pytest.mark.slow]
GGUF = Path(
    os.environ.get("COMFYUI_GGUF_PATH") or Path(os.environ.get("COMFYUI_PATH", "")) / "custom_nodes" / "ComfyUI-GGUF"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("comfyui")
    with serving(root / "base", others=[GGUF] if GGUF.is_dir() else []) as running:
        models = running.base / "models" / "diffusion_models"
        models.mkdir(parents=True, exist_ok=True)
        weights = as_they_name(Miniature().transformer("cpu", torch.float32).state_dict(), BFL)
        save_file({name: weight.bfloat16() for name, weight in weights.items()}, models / "bf16.safetensors")
        save_file(scaled_fp8(weights), models / "fp8.safetensors")
        if GGUF.is_dir():
            for kind in ("Q8_0", "Q4_0"):
                write_gguf(weights, models / f"{kind}.gguf", kind)
        yield running


def in_blocks(name: str, weight: Tensor) -> bool:
    return "_blocks." in name and weight.ndim == 2


def write_gguf(weights: dict[str, Tensor], path: Path, kind: str) -> None:
    """As city96's converter lays a FLUX out: small tensors in float32, layers of blocks in fewer bits."""
    import gguf

    writer = gguf.GGUFWriter(path, arch="flux")
    for name, weight in weights.items():
        stored = gguf.GGMLQuantizationType[kind if in_blocks(name, weight) else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(weight.float().numpy(), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def trained_on(model: list, name: str, loader: dict | None = None, **options: object) -> Graph:
    """The miniature's CLIP and VAE with another MODEL, made by node "x", in a graph that writes a LoRA."""
    options = {"rank": 4, "steps": 8, "name": name, **options}
    graph = training("miniature", **options)
    graph["2"] = node("MetaLoRA_LoadDemoPerson", person="woman-300000")
    graph["3"]["inputs"] |= {"resolution": 128, "ratios": "1:1", "scales": "2"}
    graph["4"]["inputs"]["file"] = "shipped: miniature.safetensors"
    graph["5"]["inputs"]["model"] = model
    graph["6"]["inputs"]["name"] = name
    return graph | ({"x": loader} if loader else {})


def learned(server: Server, name: str) -> Tensor:
    """What a LoRA adds to every layer, as one vector."""
    lora = load_file(sorted((server.base / "output" / "loras").glob(f"{name}_*.safetensors"))[-1])
    downs = sorted(key for key in lora if key.endswith("lora_A.weight"))
    return torch.cat([(lora[down.replace("lora_A", "lora_B")] @ lora[down]).flatten() for down in downs])


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0).item()


def file_loader(name: str) -> dict:
    return node("UNETLoader", unet_name=name, weight_dtype="default")


@pytest.fixture(scope="module")
def from_bf16(server) -> Tensor:
    if server.version == OLDEST:
        pytest.skip("0.3.64 takes every FLUX file for one of FLUX.1-dev's sizes")
    server.run(trained_on(["x", 0], "bf16", file_loader("bf16.safetensors")))
    return learned(server, "bf16")


gguf = partial(pytest.param, marks=pytest.mark.skipif(not GGUF.is_dir(), reason="city96's ComfyUI-GGUF is not there"))


@pytest.mark.parametrize(
    ("file", "least"), [("fp8.safetensors", 0.99), gguf("Q8_0.gguf", 0.99), gguf("Q4_0.gguf", 0.9)]
)
def test_fewer_bits_learn_what_bf16_learns(server, from_bf16, file: str, least: float):
    kind, ending = file.split(".")
    loader = node("UnetLoaderGGUF", unet_name=file) if ending == "gguf" else file_loader(file)
    server.run(trained_on(["x", 0], kind, loader))
    likeness = cosine(learned(server, kind), from_bf16)
    print(f"{kind}: cosine of what is learned to bf16's {likeness:.4f}")
    assert likeness >= least


def test_training_on_a_personal_model_counts_what_it_wears(server):
    """And one on the plain MODEL afterwards does not."""
    graph = trained_on(["1", 0], "once", steps=3, learning_rate=0.05)
    again = trained_on(["5", 2], "again", steps=3, seed=5)
    graph |= {"again": again["5"], "again-file": again["6"]}
    graph["again-file"]["inputs"]["adapter"] = ["again", 0]
    server.run(graph)
    server.run(trained_on(["1", 0], "plain", steps=3, seed=5))
    likeness = cosine(learned(server, "again"), learned(server, "plain"))
    print(f"on a personal model: cosine of what is learned to the plain model's {likeness:.4f}")
    assert likeness < 0.999

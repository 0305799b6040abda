"""Real bases' whole shapes with random fp8 weights in a file as users have it, in ComfyUI: loaded, a step, a LoRA back.

    METALORA_REAL_SIZES=/a/folder COMFYUI_PATH=... python -m pytest -s tests/test_nodes_real_sizes.py    # 18 and 20 GB

Asked for by name alone: with one thread 4 minutes for Z-Image, 11 for FLUX.1-dev, whose weights ComfyUI widens to
float32 layer by layer on a CPU.
"""

import os
import resource
import time
from pathlib import Path

import pytest
import torch
from comfy_families import SIZES, Vae, clip
from comfyui import needs_comfyui, pack
from safetensors.torch import save_file
from torch import Tensor

FOLDER = os.environ.get("METALORA_REAL_SIZES")
pytestmark = [
    needs_comfyui,
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="METALORA_REAL_SIZES names no folder"),
]
WHOLE = {  # what is larger than in the tiny model; the shapes of a prompt's parts; layers that carry a LoRA
    "zimage": (
        {"dim": 3840, "n_layers": 30, "n_heads": 30, "n_refiner_layers": 2, "n_kv_heads": 30, "cap_feat_dim": 2560},
        {"cross_attn": (1, 32, 2560)},
        270,
    ),
    "flux1": (
        {"vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072, "num_heads": 24, "depth": 19}
        | {"depth_single_blocks": 38, "axes_dim": [16, 56, 56]},
        {"cross_attn": (1, 256, 4096), "pooled_output": (1, 768)},
        494,
    ),
}


def write_fp8(family: str, path: Path) -> None:
    """Matrices in fp8, the rest in bf16, as the files that are passed around."""
    import comfy.supported_models

    kind, sizes = SIZES[family]
    with torch.device("meta"):
        config = getattr(comfy.supported_models, kind)({**sizes, **WHOLE[family][0]})
        config.set_inference_dtype(torch.bfloat16, None)
        network = config.get_model({}, "", device="meta").diffusion_model
    pool = torch.randn(2**22, generator=torch.Generator().manual_seed(0))

    def drawn(name: str, like: Tensor) -> Tensor:
        drawn = 0.02 * pool.repeat(-(-like.numel() // len(pool)))[: like.numel()].view(like.shape)
        if like.ndim > 1:
            return drawn.to(torch.float8_e4m3fn)
        return (drawn + ("norm" in name or name.endswith("scale"))).to(torch.bfloat16)

    save_file({name: drawn(name, like) for name, like in network.state_dict().items()}, path)


def gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@pytest.mark.parametrize("family", WHOLE)
def test_a_real_size_trains_and_the_stock_loader_reads_its_lora(family: str, tmp_path: Path):
    models, personalize = pack("nodes.bridge.models"), pack("metalora.method.personalize")
    import comfy.sd
    import comfy.utils

    path = Path(FOLDER or "") / f"{family}_fp8.safetensors"
    if not path.exists():
        write_fp8(family, path)
    began = time.monotonic()
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float8_e4m3fn})
    words = clip(family)
    if family == "flux1":
        words.tokenizer.t5xxl.min_length = 256
    backbone = pack("nodes.backbone").ComfyBackbone(model, words, Vae(model))
    config = pack("metalora.config").PersonalizeConfig(method="lora", steps=1)
    adapters, _ = pack("metalora.jobs.training_files").starting_adapters(backbone, config, None)
    parts = {name: torch.randn(shape) for name, shape in WHOLE[family][1].items()}
    if family == "zimage":
        parts["attention_mask"] = torch.ones(1, parts["cross_attn"].shape[1], dtype=torch.long)
    prompt = pack("metalora.backbones.protocol").Prompt(parts)
    learner = personalize.Person(personalize.TrainingImages([torch.randn(1, 16, 8, 8)], prompt), 0)
    saved = pack("metalora.jobs.training_files").SavedRun(tmp_path / "state.safetensors", {})
    loaded, began = time.monotonic() - began, time.monotonic()
    with backbone.denoiser() as denoiser:  # its first gradient is checked against float64
        job = pack("metalora.jobs.personalize").train(denoiser, adapters, [learner], config, saved)
        losses, _ = pack("metalora.jobs").run(job)
    assert losses[0] > 0
    sites = backbone.sites("all")
    assert len(sites) == WHOLE[family][2]
    assert all(up.abs().max() > 0 for up in adapters.parameters(("up",))), "every layer has learned"

    file = tmp_path / "person.safetensors"
    lora = pack("metalora.method.adapter").fold_all(adapters)
    pack("metalora.jobs.training_files").save_lora(
        file, lora, "diffusers", backbone.architecture, {"base": backbone.name}
    )
    tensors = comfy.utils.load_torch_file(str(file))
    assert not models.unmatched_keys(model, tensors)
    worn = models.with_lora(model, tensors)
    assert len(worn.patches) == len({site.module for site in sites})
    print(
        f"{backbone.name}: {path.stat().st_size / 1e9:.1f} GB, ready in {loaded:.0f} s, the check and a step "
        f"{time.monotonic() - began:.0f} s, at most {gigabytes():.1f} GB; a LoRA of {file.stat().st_size / 1e6:.1f} MB"
    )

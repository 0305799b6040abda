"""LoRA files as other programs write them, and what diffusers or PEFT read in each: python tests/lora_makers.py

prints the table of docs/loras.md. The numbers in the files are random; a file is written by the program itself where it
can be imported here, else in its layout.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from loras_of_bases import Made, R, Tensors, deltas_of, generator, kohya_stem, of_base, saved
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from metalora.backbones.architecture import chosen
from metalora.backbones.families.flux import FluxShape
from metalora.backbones.tiny_flux import TinyFlux
from metalora.jobs.lora import load_lora

TINY = TinyFlux.architecture
WIDE = FluxShape(
    3072, 1, 1, in_channels=64, joint_dim=4096, pooled_dim=768, guidance=True
)  # diffusers converts no other


def pairs(shape: FluxShape, preset: str = "all", prefix: str = "transformer.", rank: int = R) -> Tensors:
    g, found = generator(), {}
    for site in shape.sites(preset):
        found[f"{prefix}{site.name}.lora_A.weight"] = torch.randn(rank, site.in_features, generator=g)
        found[f"{prefix}{site.name}.lora_B.weight"] = torch.randn(site.out_features, rank, generator=g)
    return found


def fused_pairs(shape: FluxShape, stem: Callable[[str], str], alpha: float, chosen: tuple[str, ...]) -> Tensors:
    g, layers, found = generator(), {}, {}
    for site in shape.fused:
        if site.module.endswith(chosen):
            layers.setdefault(site.module, []).append(site)
    for module, own in layers.items():
        found[f"{stem(module)}.lora_down.weight"] = torch.randn(R, own[0].in_features, generator=g)
        found[f"{stem(module)}.lora_up.weight"] = torch.randn(sum(s.out_features for s in own), R, generator=g)
        found[f"{stem(module)}.alpha"] = torch.tensor(alpha)
    return found


@cache
def pipeline() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    transformer = TinyFlux().transformer("cpu", torch.float32)
    return FluxPipeline(FlowMatchEulerDiscreteScheduler(), None, None, None, None, None, transformer)


def by_diffusers(path: Path) -> dict[str, Tensor]:
    """What diffusers' pipeline adds once it has loaded the file."""
    pipe = pipeline()
    pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="theirs")
    try:
        return deltas_of(pipe.transformer, "theirs")
    finally:
        pipe.unload_lora_weights()


def by_converter(tensors: Tensors) -> dict[str, Tensor]:
    """The products in what diffusers' converter for FLUX makes of a file of the full width."""
    from diffusers import FluxPipeline

    found = FluxPipeline.lora_state_dict(dict(tensors))
    names = [key.removesuffix(".lora_A.weight") for key in found if key.endswith(".lora_A.weight")]
    return {
        name.removeprefix("transformer."): found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
        for name in names
    }


def configured(folder: Path, **config: object) -> Made:
    names = [site.name for site in TINY.sites("all")]
    config = {"r": R, "lora_alpha": 16, "peft_type": "LORA", "target_modules": names, **config}
    metadata = {f"transformer.{key}": value for key, value in config.items()}
    tensors = pairs(TINY)
    for key, rank in metadata.get("transformer.rank_pattern", {}).items():
        for name in [name for name in tensors if key in name]:
            tensors[name] = torch.randn(
                *(rank if size == R else size for size in tensors[name].shape), generator=generator()
            )
    path = saved(folder, tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(metadata)})
    return Made(path, TINY, by_diffusers(path))


def diffusers_patterns(folder: Path) -> Made:
    return configured(
        folder,
        rank_pattern={"single_transformer_blocks.1.attn.to_q": 8, "proj_mlp": 2},
        alpha_pattern={"transformer_blocks.1.attn.to_q": 2, "attn.to_v": 1, "single_transformer_blocks.0.proj_out": 3},
    )


def ai_toolkit(folder: Path) -> Made:
    path = saved(folder, {key: tensor.bfloat16() for key, tensor in pairs(TINY).items()}, {"name": "ada"})
    return Made(path, TINY, by_diffusers(path))


def alpha_tensors(folder: Path) -> Made:
    alphas = {
        f"transformer.{site.name}.alpha": torch.tensor(float(2 + (site.name.endswith("to_q"))))
        for site in TINY.sites("all")
    }
    path = saved(folder, pairs(TINY) | alphas)
    return Made(path, TINY, by_diffusers(path))


LINEAR = ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "to_out.0", "proj_mlp"]


def diffusers_model(folder: Path) -> Made:
    """What a model's own save_lora_adapter writes: no prefix, in the metadata neither."""
    from peft import LoraConfig

    torch.manual_seed(0)
    model = TinyFlux().transformer("cpu", torch.float32)
    config = LoraConfig(r=R, lora_alpha=6, target_modules=LINEAR, init_lora_weights=False)
    model.add_adapter(config, adapter_name="theirs")
    model.save_lora_adapter(folder, adapter_name="theirs")
    return Made(next(folder.glob("*.safetensors")), TINY, deltas_of(model, "theirs"))


def peft_file(folder: Path, kind: str, **config: object) -> Made:
    """What PEFT writes of a model with this config of its own."""
    import peft

    torch.manual_seed(0)  # what PEFT draws
    chosen = getattr(peft, kind)(r=R, target_modules=LINEAR, **config)
    model = peft.get_peft_model(TinyFlux().transformer("cpu", torch.float32), chosen)
    model.save_pretrained(folder)
    return Made(folder / "adapter_model.safetensors", TINY, deltas_of(model, "default"))


PEFT_LORA = {
    "lora_alpha": 16,
    "init_lora_weights": False,
    "use_rslora": True,
    "rank_pattern": {"attn.to_q": 2, r"^transformer_blocks\.\d+\.attn\.to_k": 6},
    "alpha_pattern": {"attn.to_v": 3},
}
PEFT_LOKR = {"alpha": 2, "init_weights": False, "decompose_factor": 8, "rank_pattern": {"attn.to_q": 200}}
PEFT_LOHA = {"alpha": 2, "init_weights": False, "rank_pattern": {"to_k": 16}}


def converted(folder: Path, tensors: Tensors) -> Made:
    return Made(saved(folder, tensors), WIDE, by_converter(tensors))


CHOSEN = "img_attn.qkv", "txt_attn.proj", "img_mod.lin", "txt_mlp.2", "linear1", "linear2"


def kohya(folder: Path) -> Made:
    return converted(folder, fused_pairs(WIDE, kohya_stem, 1.0, CHOSEN))


def comfyui(folder: Path) -> Made:
    return converted(folder, fused_pairs(WIDE, "diffusion_model.{}".format, 3.0, CHOSEN))


def onetrainer(folder: Path) -> Made:
    found = {}
    for key, tensor in pairs(WIDE, "attention", "").items():
        name, _, role = key.removesuffix(".weight").rpartition(".")
        stem = "lora_transformer_" + name.replace(".", "_")
        found[f"{stem}.{'lora_down' if role == 'lora_A' else 'lora_up'}.weight"] = tensor
        found[f"{stem}.alpha"] = torch.tensor(1.0)
    return converted(folder, found)


def xlabs(folder: Path) -> Made:
    g, found = generator(), {}
    for name, reads, writes in (
        *((f"double_blocks.0.processor.qkv_lora{stream}", 3072, 9216) for stream in (1, 2)),
        *((f"double_blocks.0.processor.proj_lora{stream}", 3072, 3072) for stream in (1, 2)),
        ("single_blocks.0.processor.qkv_lora", 3072, 9216),
        ("single_blocks.0.processor.proj_lora", 15360, 3072),
    ):
        found[f"{name}.down.weight"] = torch.randn(R, reads, generator=g)
        found[f"{name}.up.weight"] = torch.randn(writes, R, generator=g)
    return converted(folder, found)


def lycoris(folder: Path) -> Made:
    """LoKr on fused layers: one factor whole, the other in two, alpha over their rank."""
    g, found, expected = generator(), {}, {}
    for site in chosen(TINY.fused, "attention"):
        stem = "lora_unet_" + site.module.replace(".", "_")
        writes = sum(s.out_features for s in TINY.fused if s.module == site.module)
        if f"{stem}.alpha" not in found:
            found[f"{stem}.lokr_w1"] = torch.randn(8, 8, generator=g)
            found[f"{stem}.lokr_w2_a"] = torch.randn(writes // 8, R, generator=g)
            found[f"{stem}.lokr_w2_b"] = torch.randn(R, site.in_features // 8, generator=g)
            found[f"{stem}.alpha"] = torch.tensor(2.0)
        whole = torch.kron(found[f"{stem}.lokr_w1"], found[f"{stem}.lokr_w2_a"] @ found[f"{stem}.lokr_w2_b"])
        for own in TINY.fused:
            if own.module == site.module:
                expected[own.name] = (whole * 2.0 / R)[own.rows]
    return Made(saved(folder, found), TINY, expected)


MAKERS: dict[str, tuple[str, str, Callable[[Path], Made]]] = {
    "diffusers": ("`transformer.`, `lora_adapter_metadata` with patterns", "diffusers", diffusers_patterns),
    "diffusers, rslora": ("the same, `use_rslora`", "diffusers", partial(configured, use_rslora=True)),
    "diffusers, a model's": ("no prefix, `lora_adapter_metadata`", "diffusers", diffusers_model),
    "SimpleTuner": (
        "`transformer.`, `lora_adapter_metadata`",
        "diffusers",
        partial(configured, lora_bias=False, use_dora=False),
    ),
    "ai-toolkit": ("`transformer.`, bf16", "diffusers", ai_toolkit),
    "older diffusers": ("`transformer.` with `.alpha` tensors", "diffusers", alpha_tensors),
    "PEFT": (
        "`base_model.model.`, adapter_config.json: rslora, patterns",
        "PEFT",
        partial(peft_file, kind="LoraConfig", **PEFT_LORA),
    ),
    "PEFT LoKr": ("the same, `lokr_w1`, `lokr_w2_a`, ...", "PEFT", partial(peft_file, kind="LoKrConfig", **PEFT_LOKR)),
    "PEFT LoHa": ("the same, `hada_w1_a`, ...", "PEFT", partial(peft_file, kind="LoHaConfig", **PEFT_LOHA)),
    "kohya": ("`lora_unet_`, fused, `.alpha`", "diffusers", kohya),
    "ComfyUI, Black Forest Labs": ("`diffusion_model.`, fused, `.alpha`", "diffusers", comfyui),
    "OneTrainer": ("`lora_transformer_`, split, `.alpha`", "diffusers", onetrainer),
    "LyCORIS": ("`lora_unet_`, fused, LoKr with `.alpha`", "torch.kron", lycoris),
    "XLabs": ("`double_blocks.0.processor.qkv_lora1`", "diffusers", xlabs),
    **{
        f"{called}, {layout}": (shown, "diffusers", partial(of_base, family, layout))
        for called, family in (("FLUX.2", "flux.2-klein"), ("Z-Image", "z-image"), ("Qwen-Image", "qwen-image"))
        for layout, shown in (
            ("diffusers", "`transformer.`, `lora_adapter_metadata`"),
            ("ai-toolkit", "`diffusion_model.`" + ", fused" * (family == "flux.2-klein")),
            ("kohya", "`lora_unet_`, `.alpha`" + ", fused" * (family == "flux.2-klein")),
        )
    },
}


def differences(made: Made) -> tuple[int, float, float]:
    """(sites, largest difference to what the other program adds, largest number that it adds)."""
    backbone: Any = SimpleNamespace(architecture=made.shape, name=made.shape.name)
    lora, _ = load_lora(made.path, backbone)
    assert lora.keys() == made.expected.keys(), lora.keys() ^ made.expected.keys()
    most = largest = 0.0
    for name, (down, up) in lora.items():
        expected = made.expected[name].float()
        most = max(most, (up @ down - expected).abs().max().item())
        largest = max(largest, expected.abs().max().item())
    return len(lora), most, largest


def table() -> Iterator[str]:
    """The rows of the table, one for each maker."""
    yield "| maker | layout | sites | largest difference | of numbers up to | compared with |"
    yield "|---|---|---|---|---|---|"
    for maker, (layout, reader, make) in MAKERS.items():
        with tempfile.TemporaryDirectory() as folder:
            count, most, largest = differences(make(Path(folder)))
        yield f"| {maker} | {layout} | {count} | {most:.2g} | {largest:.3g} | {reader} |"


if __name__ == "__main__":
    print("\n".join(table()))

"""Tiny random models of ComfyUI's real classes, a family each, their prompts, and gradients of adapters on them."""

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui import pack
from tiny_bases import PIPELINES
from torch import Tensor, nn

CPU = torch.device("cpu")
TIMES = torch.tensor([0.35, 0.8])
FLUX = {"patch_size": 2, "context_in_dim": 40, "hidden_size": 64, "num_heads": 2, "depth": 2, "depth_single_blocks": 2}
FLUX |= {"mlp_ratio": 4.0, "axes_dim": [8, 12, 12], "theta": 10000, "qkv_bias": True, "txt_ids_dims": []}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {  # family -> ComfyUI's class of settings, a model's sizes
    "flux1": (
        "Flux",
        FLUX | {"image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 24, "guidance_embed": True},
    ),
    "flux2": (
        "Flux2",
        FLUX
        | {"image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1, "vec_in_dim": None}
        | {"context_in_dim": 48, "mlp_ratio": 3.0, "axes_dim": [8, 8, 8, 8], "theta": 2000, "qkv_bias": False}
        | {"ops_bias": False, "guidance_embed": False, "global_modulation": True, "mlp_silu_act": True}
        | {"default_ref_method": "index", "ref_index_scale": 10.0, "txt_ids_dims": [3], "yak_mlp": False}
        | {"txt_norm": False},
    ),
    "chroma": (
        "Chroma",
        FLUX
        | {"image_model": "chroma", "in_channels": 64, "out_channels": 64, "vec_in_dim": None, "in_dim": 64}
        | {"out_dim": 64, "hidden_dim": 40, "n_layers": 2},
    ),
    "zimage": (
        "ZImage",
        {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 384, "n_layers": 2, "n_heads": 3}
        | {"n_refiner_layers": 1, "n_kv_heads": 3, "cap_feat_dim": 40, "qk_norm": True, "axes_dims": [32, 48, 48]}
        | {"axes_lens": [1536, 512, 512], "rope_theta": 256.0, "ffn_dim_multiplier": 8 / 3, "time_scale": 1000.0}
        | {"z_image_modulation": True, "pad_tokens_multiple": 32},
    ),
    "lumina2": (
        "Lumina2",
        {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 96, "n_layers": 2, "n_heads": 4}
        | {"n_refiner_layers": 1, "n_kv_heads": 2, "cap_feat_dim": 40, "qk_norm": True, "axes_dims": [8, 8, 8]}
        | {"axes_lens": [300, 512, 512], "rope_theta": 10000.0, "ffn_dim_multiplier": 4.0},
    ),
    "qwen": (
        "QwenImage",
        {"image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "attention_head_dim": 32}
        | {"num_attention_heads": 2, "joint_attention_dim": 40, "axes_dims_rope": (8, 12, 12)},
    ),
    "krea2": (
        "Krea2",
        {"image_model": "krea2", "features": 64, "heads": 4, "kvheads": 2, "multiplier": 4, "layers": 2}
        | {"channels": 16, "patch": 2, "txtdim": 32, "txtlayers": 3, "txtheads": 2, "txtkvheads": 2},
    ),
    "sd3": (
        "SD3",
        {"in_channels": 16, "out_channels": 16, "patch_size": 2, "depth": 2, "input_size": None, "num_patches": 256}
        | {"adm_in_channels": 32, "pos_embed_max_size": 16, "qk_norm": "rms", "pos_embed_scaling_factor": None}
        | {"context_embedder_config": {"params": {"in_features": 40, "out_features": 128}}}
        | {"x_block_self_attn_layers": [0]},
    ),
    "sdxl": (
        "SDXL",
        {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1, 1]}
        | {"channel_mult": [1, 2], "transformer_depth": [0, 2], "transformer_depth_middle": 2, "context_dim": 40}
        | {"transformer_depth_output": [0, 0, 2, 2], "use_linear_in_transformer": True, "num_classes": "sequential"}
        | {"adm_in_channels": 16 + 6 * 256, "use_temporal_attention": False, "use_checkpoint": False}
        | {"use_spatial_transformer": True, "legacy": False},
    ),
    "ernie": (
        "ErnieImage",
        {"image_model": "ernie", "hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "text_in_dim": 40}
        | {"ffn_hidden_size": 128, "rope_axes_dim": (8, 12, 12)},
    ),
}
SIZES["sd3"][1]["context_embedder_config"]["target"] = "torch.nn.Linear"
AS_HEADLESS = {"flux2": "flux.2-klein", "qwen": "qwen-image", "krea2": "krea-2", "sd3": "sd3.5"}  # in tiny_bases.py
LAYERS = {"num_layers": 2, "num_single_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2}
LAYERS |= {"joint_attention_dim": 40, "in_channels": 64, "axes_dims_rope": (8, 12, 12)}
DIFFUSERS: dict[str, dict[str, Any]] = {  # the others' class of a transformer, and the sizes of `SIZES` there
    "Flux": {**LAYERS, "pooled_projection_dim": 24, "guidance_embeds": True},
    "Chroma": {**LAYERS, "approximator_hidden_dim": 40, "approximator_layers": 2},
    "ZImage": {"dim": 384, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3, "cap_feat_dim": 40}
    | {"axes_dims": [32, 48, 48]},
}
IN_DIFFUSERS = {"flux1": "Flux", "chroma": "Chroma", "zimage": "ZImage", **AS_HEADLESS}
NEWER = ("txt_ids_dims", "rope_theta")  # sizes that ComfyUI 0.3.64 does not ask for
TEXT = {"flux2": 48, "krea2": 96}  # width of a prompt's tokens, where it is not 40
POOLED = {"flux1": 24, "sd3": 32, "sdxl": 16}
CHANNELS = {"flux2": 128, "ernie": 128, "sdxl": 4}


def in_diffusers(family: str) -> tuple[nn.Module, Any]:
    """(a transformer of diffusers' own class in the family's sizes, what reads LoRA files for it)."""
    import diffusers
    from diffusers.loaders import lora_pipeline

    known = IN_DIFFUSERS[family]
    if known in PIPELINES:
        model = PIPELINES[known][1]()["transformer"]()
    else:
        model = getattr(diffusers, f"{known}Transformer2DModel")(**DIFFUSERS[known])
    name = type(model).__name__.removesuffix("Transformer2DModel").replace("Chroma", "Flux")
    return model, vars(lora_pipeline)[f"{name}LoraLoaderMixin"]


def skip_without(family: str) -> None:
    """Skip a test of a family that this ComfyUI does not have."""
    pack("nodes.backbone")  # which settles that ComfyUI runs on the CPU
    import comfy.supported_models

    if SIZES[family][0] not in vars(comfy.supported_models):
        pytest.skip(f"this ComfyUI has no {family}")


def build(family: str, stored: torch.dtype = torch.float32, quantized: bool = False) -> Any:
    """A MODEL of the family, with the same numbers in every precision."""
    skip_without(family)
    import comfy.ldm.flux.model
    import comfy.model_patcher
    import comfy.supported_models

    kind, sizes = SIZES[family]
    older = "txt_ids_dims" not in vars(comfy.ldm.flux.model.FluxParams)["__dataclass_fields__"]
    known = {name: size for name, size in sizes.items() if not (older and (name in NEWER or size is None))}
    config = vars(comfy.supported_models)[kind](known)
    if quantized:
        config.quant_config = {"mixed_ops": True}
    config.set_inference_dtype(stored, torch.float32 if quantized or stored != torch.float32 else None)
    model = config.get_model({}, "", device=CPU)
    if not quantized:
        randomize(model.diffusion_model)
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


@torch.no_grad()
def randomize(network: nn.Module) -> None:
    """Drawn by name, so that nothing is zero and nothing explodes; exact in bfloat16."""
    for name, weight in [*network.named_parameters(), *network.named_buffers()]:
        if weight.is_floating_point() and weight.numel():
            seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
            drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            drawn = drawn / weight[0].numel() ** 0.5 if weight.ndim >= 2 else 0.1 * drawn
            is_norm = name.endswith("weight") and (
                "norm" in name.lower() or name.endswith(("ln_q.weight", "ln_k.weight"))
            )
            weight.copy_((drawn + (weight.ndim < 2 and is_norm)).to(torch.bfloat16))


def prompt(family: str, tokens: int = 5) -> dict[str, Tensor]:
    """A conditioning's tensors."""
    generator = torch.Generator().manual_seed(11)
    made = {"cross_attn": torch.randn(1, tokens, TEXT.get(family, 40), generator=generator)}
    if family in POOLED:
        made["pooled_output"] = torch.randn(1, POOLED[family], generator=generator)
    if family in ("zimage", "lumina2", "qwen"):
        made["attention_mask"] = torch.ones(1, tokens, dtype=torch.long)
    return made


def latents(family: str, batch: int = 2) -> Tensor:
    """[b, c, 8, 6]."""
    return torch.randn(batch, CHANNELS.get(family, 16), 8, 6, generator=torch.Generator().manual_seed(5))


class Vae:
    """A VAE as far as a backbone looks at one; it encodes nothing."""

    vae_dtype, device = torch.float32, CPU

    def __init__(self, model: Any):
        known = model.model.latent_format
        self.latent_channels, self.latent_dim = known.latent_channels, known.latent_dimensions

    def spacial_compression_encode(self) -> int:
        return 16 if self.latent_channels == 128 else 8


def clip(family: str) -> Any:
    """A CLIP as far as a backbone looks at one: of a FLUX.1, one with T5's shortest length."""
    if family != "flux1":
        return SimpleNamespace(tokenizer=None, cond_stage_model=nn.Identity())
    from comfy.text_encoders.flux import FluxTokenizer

    tokenizer = FluxTokenizer.__new__(FluxTokenizer)
    tokenizer.t5xxl = SimpleNamespace(min_length=5)
    return SimpleNamespace(tokenizer=tokenizer, cond_stage_model=nn.Identity())


def backbone_of(family: str, model: Any):
    return pack("nodes.backbone").ComfyBackbone(model, clip(family), Vae(model))


def adapters_of(backbone, dtype: torch.dtype = torch.float32):
    """Three layers at every site, none of them zero."""
    adapter, generator = pack("metalora.method.adapter"), torch.Generator().manual_seed(3)
    sites = backbone.sites("all")
    made = adapter.new_adapters(sites, 1, generator, meta_down=adapter.random_meta_down(sites, 4, generator))
    for one in made.by_name.values():
        one.up.data = 0.3 * torch.randn(one.up.shape, generator=generator)
        one.to(dtype)
    return made


def gradients(
    family: str,
    model: Any,
    *,
    checkpointing: bool = False,
    dtype: torch.dtype = torch.float32,
    check: bool = True,
    inputs_too: bool = False,
) -> dict[str, Tensor | None]:
    """Of the loss, by adapter; float64 is the truth, and not checked against it."""
    backbone = backbone_of(family, model)
    adapters, clean = adapters_of(backbone, dtype), latents(family)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(6))
    flow, words = pack("metalora.method.flow"), {name: cast(part, dtype) for name, part in prompt(family).items()}
    clean, noise, t = clean.to(dtype), noise.to(dtype), TIMES.to(dtype)
    clean.requires_grad_(inputs_too)
    words["cross_attn"].requires_grad_(inputs_too)
    with backbone.denoiser() as denoiser, adapters.attached(denoiser.network):
        denoiser.checked = not check or dtype == torch.float64
        denoiser.checkpointing(checkpointing)
        predicted = denoiser(flow.noised(clean, noise, t), t, words)
        (predicted - flow.velocity(clean, noise)).square().mean().backward()
    return {name: gradient_of(adapter) for name, adapter in adapters.by_name.items()}


def gradient_of(adapter) -> Tensor | None:
    """Of its three matrices, as one vector."""
    weights = [weight.grad for weight in adapter.weights().values()]
    return None if weights[0] is None else torch.cat([weight.flatten() for weight in weights])


def cast(part: Tensor, dtype: torch.dtype) -> Tensor:
    return part.to(dtype) if part.is_floating_point() else part


def exact_gradients(family: str) -> dict[str, Tensor | None]:
    """In float64, also where ComfyUI's networks go through float32."""
    to_float = Tensor.float
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Tensor, "float", lambda self: self if self.dtype == torch.float64 else to_float(self))
        return gradients(family, build(family, torch.float64), dtype=torch.float64)


def worst(found: dict[str, Tensor | None], truth: dict[str, Tensor | None]) -> float:
    """The largest relative error of an adapter's gradient."""
    errors = []
    for name, wanted in truth.items():
        if wanted is None or not wanted.any():
            assert found[name] is None or not found[name].any(), name
        else:
            assert found[name] is not None, f"{name} has no gradient"
            errors.append(((found[name].double() - wanted.double()).norm() / wanted.double().norm()).item())
    assert len(errors) > 0.8 * len(truth)
    return max(errors)

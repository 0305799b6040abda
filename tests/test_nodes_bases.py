"""Every base that ComfyUI loads, as tiny random models of its real classes: gradients, LoRAs, refusals."""

import json
from typing import Any

import pytest
import torch
from comfy_families import (
    IN_DIFFUSERS,
    TIMES,
    Vae,
    adapters_of,
    backbone_of,
    build,
    clip,
    exact_gradients,
    gradients,
    in_diffusers,
    latents,
    prompt,
    skip_without,
    worst,
)
from comfyui import needs_comfyui, pack
from loras_of_bases import deltas_of

pytestmark = [needs_comfyui, pytest.mark.slow]
BASES = ["flux1", "flux2", "zimage", "qwen", "krea2", "sd3", "chroma", "sdxl", "lumina2"]
ROTATED = {"convrot": True, "convrot_groupsize": 16}
Settings = dict[str, Any]
QUANTIZED: dict[str, tuple[str, Settings, Settings]] = {  # ComfyUI's layout, what a file says of it, how it is made
    "fp8": ("TensorCoreFP8E4M3Layout", {"format": "float8_e4m3fn"}, {"scale": "recalculate"}),
    "int8": ("TensorWiseINT8Layout", {"format": "int8_tensorwise"}, {"per_channel": True}),
    "int8_convrot": ("TensorWiseINT8Layout", {"format": "int8_tensorwise"} | ROTATED, {"per_channel": True} | ROTATED),
    "nvfp4": ("TensorCoreNVFP4Layout", {"format": "nvfp4"}, {}),
}


@pytest.fixture(params=BASES)
def family(request) -> str:
    skip_without(request.param)
    return request.param


def test_every_adapters_gradient_is_that_of_float64_however_the_model_is_kept(family: str):
    truth = exact_gradients(family)
    with torch.inference_mode():  # as a loader node runs
        loaded = build(family)
    with torch.inference_mode():
        in_bf16 = build(family, torch.bfloat16)
    kept = {
        "plain": worst(gradients(family, loaded), truth),
        "checkpointed": worst(gradients(family, loaded, checkpointing=True), truth),
        "bf16 weights": worst(gradients(family, in_bf16), truth),
    }
    print(f"{family}: worst relative error {', '.join(f'{how} {error:.1e}' for how, error in kept.items())}")
    assert max(kept.values()) < 1e-4, kept


def test_the_stock_loader_gives_what_the_adapters_gave_and_knows_every_key(family: str):
    loras, formats = pack("nodes.bridge.models"), pack("metalora.backbones.architecture")
    model, words, x = build(family), prompt(family), latents(family)
    backbone = backbone_of(family, model)
    adapters = adapters_of(backbone)
    merged = pack("metalora.method.adapter").fold_all(adapters)
    with torch.no_grad(), backbone.denoiser() as denoiser:
        plain = denoiser(x, TIMES, words)
        with adapters.attached(denoiser.network):
            live = denoiser(x, TIMES, words)
    for kind in formats.KEY_FORMATS if family == "flux1" else ["diffusers"]:
        lora = formats.format_lora(merged, kind, backbone.architecture)
        assert loras.unmatched_keys(model, lora) == []
        with torch.no_grad(), backbone_of(family, loras.with_lora(model, lora)).denoiser() as denoiser:
            stock = denoiser(x, TIMES, words)
        error = ((stock - live).norm() / (live - plain).norm()).item()
        print(f"{family}, {kind}: {len(adapters.sites)} sites, stock loader {error:.1e} of the LoRA's effect")
        assert error < 1e-4
    with torch.no_grad(), backbone.denoiser() as denoiser:
        assert torch.equal(denoiser(x, TIMES, words), plain), "the model is what it was"


def quantized(family: str, kind: str) -> tuple[Any, Any]:
    """(a MODEL whose layers in blocks are stored in fewer bits, a plain one of the numbers they stand for)."""
    from comfy.quant_ops import QuantizedTensor

    plain = build(family)
    network = plain.model.diffusion_model
    inside = tuple(f"{path}." for path, _ in pack("nodes.bridge.sites").blocks_of(network))
    layers = [name for name, m in network.named_modules() if name.startswith(inside) and isinstance(m, torch.nn.Linear)]
    state = dict(network.state_dict())
    for name in layers:
        weight = state[f"{name}.weight"]
        layout, words, made_with = QUANTIZED[kind]
        kept = QuantizedTensor.from_float(weight, layout, **made_with)
        network.get_submodule(name).weight.data.copy_(kept.dequantize())
        state[f"{name}.weight"] = kept._qdata
        if kind == "nvfp4":
            state[f"{name}.weight_scale"] = kept._params.block_scale
            state[f"{name}.weight_scale_2"] = kept._params.scale
        else:
            state[f"{name}.weight_scale"] = kept._params.scale
        state[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps(words).encode()), dtype=torch.uint8)
    made = build(family, quantized=True)
    missing, unexpected = made.model.diffusion_model.load_state_dict(state, strict=False)
    assert not missing
    assert not unexpected
    return made, plain


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("family", ["flux1", "zimage", "qwen"], indirect=True)
def test_layers_that_are_no_linear_of_torchs_are_trained_on(family: str, kind: str):
    """As ComfyUI's own quantized layers keep them; some round their inputs too."""
    pytest.importorskip("comfy.quant_ops")
    made, plain = quantized(family, kind)
    found, wanted = gradients(family, made), gradients(family, plain)
    assert gradients(family, made, checkpointing=True).keys() == wanted.keys()
    both = [torch.cat([g for g in grads.values() if g is not None]) for grads in (found, wanted)]
    likeness = torch.nn.functional.cosine_similarity(*both, dim=0).item()
    print(f"{family} {kind}: cosine to the dequantized model's gradients {likeness:.5f}")
    assert likeness > 0.99


class GuidancePatch:
    """As another pack's node hangs on a MODEL."""

    def __call__(self, args):
        return args["denoised"]


@pytest.mark.parametrize("kind", ["post_cfg", "pre_cfg", "cfg", "calc_cond_batch"])
def test_a_guidance_patch_is_refused_by_name(kind: str):
    model = build("flux1")
    patched = model.clone()
    getattr(patched, f"set_model_sampler_{kind}_function")(GuidancePatch())
    with pytest.raises(
        pack("metalora.config").UserError, match=r"guidance patch on it .GuidancePatch.*before that node"
    ):
        backbone_of("flux1", patched)
    backbone_of("flux1", model)


@pytest.mark.parametrize("how", ["in the network's place", "around the model"])
def test_a_compiled_model_trains_like_the_plain_one_and_leaves_it_plain(how: str):
    model = build("flux1")
    wanted = gradients("flux1", model)
    compiled = model.clone()
    if how == "around the model":
        from comfy_api.torch_helpers import set_torch_compile_wrapper

        set_torch_compile_wrapper(compiled, backend="eager")
    else:
        network = compiled.get_model_object("diffusion_model")
        compiled.add_object_patch("diffusion_model", torch.compile(network, backend="eager"))
        compiled.patch_model()  # as a sampler that ran before has left it
    for again in (compiled, model):
        found = gradients("flux1", again)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert backbone_of("flux1", model).name == "flux-64x2x2"


def test_a_model_is_trained_as_its_patches_make_it_compute():
    model, made = build("flux1"), []
    skipping = model.clone()
    skipping.set_model_patch_replace(lambda given, extra: given, "dit", "double_block", 1)
    for one in (model, skipping):
        with backbone_of("flux1", one).denoiser() as denoiser, torch.no_grad():
            made.append(denoiser(latents("flux1"), TIMES, prompt("flux1")))
    assert not torch.allclose(*made)


def test_a_base_without_a_backward_is_refused_by_the_check():
    model = build("ernie")
    with pytest.raises(pack("metalora.config").UserError, match=r"gradients of this model's .* are wrong"):
        gradients("ernie", model)


def test_parts_that_do_not_belong_together_are_refused_in_a_sentence():
    refused = pack("metalora.config").UserError
    model, other = build("flux1"), build("sdxl")
    with pytest.raises(refused, match=r"This VAE makes latents of 4 channels in 2 dimensions, but this MODEL, a Flux,"):
        pack("nodes.backbone").ComfyBackbone(model, clip("flux1"), Vae(other))
    with pytest.raises(refused, match=r"This MODEL is a FLUX.1, and this CLIP a Identity"):
        pack("nodes.backbone").ComfyBackbone(model, clip("sdxl"), Vae(model))
    with backbone_of("sdxl", other).denoiser() as denoiser, pytest.raises(refused, match="Load the text encoder"):
        denoiser(latents("sdxl"), TIMES, {"cross_attn": torch.randn(1, 5, 41), "pooled_output": torch.randn(1, 16)})


@pytest.mark.parametrize("family", IN_DIFFUSERS)
def test_the_file_opens_in_diffusers_with_the_same_change_of_every_layer(family: str, tmp_path):
    """Diffusers' own class of the same sizes, through its LoRA loader and peft."""
    pytest.importorskip("peft")
    backbone = backbone_of(family, build(family))
    model, loader = in_diffusers(family)
    merged = pack("metalora.method.adapter").fold_all(adapters_of(backbone))
    path = tmp_path / "ada.safetensors"
    files, said = pack("metalora.jobs.training_files"), {"base": backbone.name}
    files.save_lora(path, merged, "diffusers", backbone.architecture, said)
    given = {"transformer": model, "adapter_name": "ada", "low_cpu_mem_usage": False}
    given |= {"network_alphas": None} if family in ("flux1", "chroma") else {}
    loader.load_lora_into_transformer(loader.lora_state_dict(str(path)), **given)
    found = deltas_of(model, "ada")
    assert found.keys() == merged.keys()
    for layer, (down, up) in merged.items():
        torch.testing.assert_close(found[layer], up @ down, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("family", "file", "cfg"),
    [
        ("flux1", "flux1-schnell.safetensors", False),
        ("zimage", "z_image_bf16.safetensors", True),
        ("zimage", "z_image_turbo_bf16.safetensors", False),
        ("flux2", "flux-2-klein-base-4b.safetensors", True),
        ("flux2", "flux-2-klein-4b.safetensors", False),
        ("sdxl", None, True),
    ],
)
def test_previews_use_cfg_where_the_base_needs_it(family: str, file: str | None, cfg: bool):
    model, models, previews = build(family), pack("nodes.bridge.models"), pack("nodes.previews")
    if file:
        model.cached_patcher_init = (None, (f"/models/{file}", {}))  # as ComfyUI's loader leaves it
    assert models.needs_cfg(model) == cfg
    words = prompt(family)
    backbone = pack("nodes.backbone").ComfyBackbone(model, clip(family), Vae(model))
    assert (previews.ImagePreview(backbone, words, words, 64, 1, 1).negative is not None) == cfg
    assert previews.ImagePreview(backbone, words, words, 64, 1, 1, cfg=1.0).negative is None

"""Gradients through ComfyUI's own FLUX, against diffusers' FLUX in float64: right with the guard, wrong without it."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch
from comfyui import ROOT, needs_comfyui, pack
from torch import Tensor

from metalora.backbones.architecture import FluxShape
from metalora.backbones.families.flux import FLUX, scheduler_config
from metalora.backbones.lora_formats import KEY_FORMATS, format_lora
from metalora.backbones.pipeline import PipelineDenoiser
from metalora.backbones.protocol import Prompt
from metalora.backbones.tiny_flux import SHAPE, TinyFlux
from metalora.method.adapter import Adapters, linears, new_adapters, random_meta_down

pytestmark = needs_comfyui


def loaded(stored: torch.dtype = torch.float32):
    """A backbone over the tiny FLUX, made as a loader node makes its parts."""
    small = pack("nodes.bridge.small")
    tiny = pack("metalora.backbones.tiny_flux").TinyFlux()
    with torch.inference_mode():
        model, clip, vae = small.small_parts(tiny)
        if stored != torch.float32:
            model = small.small_model(tiny, stored)
    return pack("nodes.backbone").ComfyBackbone(model, clip, vae)


@pytest.fixture(scope="module")
def backbone():
    return loaded()


def adapters(fused: bool, *, meta: bool) -> Adapters:
    found = SHAPE.fused if fused else SHAPE.places
    generator = torch.Generator().manual_seed(1)
    downs = random_meta_down(found, 4, generator) if meta else None
    made = new_adapters(found, 2, generator, meta_down=downs)
    for weight in made.parameters(("up",)):
        weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    return made


def gradients(denoiser, worn: Adapters, dtype: torch.dtype, inputs_too: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    latents, target = drawn(2, 16, 8, 6), drawn(2, 16, 8, 6)
    tokens, pooled = drawn(1, 12, SHAPE.joint_dim).requires_grad_(inputs_too), drawn(1, SHAPE.pooled_dim)
    latents.requires_grad_(inputs_too)
    names = ("tokens", "pooled") if isinstance(denoiser, PipelineDenoiser) else ("cross_attn", "pooled_output")
    with worn.attached(denoiser.network):
        made = denoiser(
            latents, torch.tensor([0.25, 0.75], dtype=dtype), Prompt(zip(names, (tokens, pooled), strict=True))
        )
        (made - target).square().mean().backward()
    return {
        f"{name}.{role}": weight.grad
        for name, adapter in worn.by_name.items()
        for role, weight in adapter.weights().items()
    }


def in_comfyui(backbone, *, meta: bool, checkpointing: bool, checked: bool = True, inputs_too: bool = False):
    with backbone.denoiser() as denoiser:
        denoiser.checkpointing(checkpointing)
        denoiser.checked = not checked
        return gradients(denoiser, adapters(fused=True, meta=meta), torch.float32, inputs_too)


def reference(*, meta: bool) -> dict[str, Tensor]:
    network = TinyFlux().transformer("cpu", torch.float64).requires_grad_(False)
    worn = adapters(fused=False, meta=meta)
    for adapter in worn.by_name.values():
        adapter.double()
    denoiser = PipelineDenoiser(FLUX, network, scheduler_config(SHAPE), {})
    return gradients(denoiser, worn, torch.float64)


def errors(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    return {name: ((found[name].double() - truth[name]).norm() / truth[name].norm()).item() for name in truth}


@pytest.mark.parametrize("meta", [True, False], ids=["three layers", "plain LoRA"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_every_adapters_gradient_is_that_of_the_reference(backbone, checkpointing: bool, meta: bool):
    found = in_comfyui(backbone, meta=meta, checkpointing=checkpointing)
    worst = max(errors(found, reference(meta=meta)).items(), key=lambda item: item[1])
    print(f"worst relative error: {worst[1]:.1e}")
    assert worst[1] < 1e-5, worst


def unguarded(monkeypatch) -> None:
    """A whole block checkpointed without copies, as the core's trainer does it."""

    def recomputed(forward, how):
        def chosen(*args, **kwargs):
            if not (how.on and torch.is_grad_enabled()):
                return forward(*args, **kwargs)
            return torch.utils.checkpoint.checkpoint(lambda: forward(*args, **kwargs), use_reentrant=False)

        return chosen

    guard = pack("nodes.gradients")
    monkeypatch.setattr(guard, "guarded_norms", lambda network: contextlib.nullcontext())
    monkeypatch.setattr(guard, "recomputed", recomputed)


def test_without_the_guard_checkpointed_gradients_are_wrong_and_nothing_says_so(backbone, monkeypatch):
    unguarded(monkeypatch)
    # As in the core's trainer, which trains the first layers too, so that what enters the blocks needs a gradient.
    found = in_comfyui(backbone, meta=True, checkpointing=True, checked=False, inputs_too=True)
    worst = max(errors(found, reference(meta=True)).values())
    print(f"worst relative error without the guard: {worst:.1e}")
    assert worst > 0.05


def test_without_the_guard_and_without_checkpointing_autograd_notices(backbone, monkeypatch):
    unguarded(monkeypatch)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        in_comfyui(backbone, meta=True, checkpointing=False, checked=False)


@pytest.mark.parametrize("missing", ["guarded_norms", "own_copy"])
def test_the_check_of_a_users_model_finds_either_half_of_the_guard_missing(backbone, monkeypatch, missing: str):
    without = {"guarded_norms": lambda network: contextlib.nullcontext(), "own_copy": lambda value: value}
    monkeypatch.setattr(pack("nodes.gradients"), missing, without[missing])
    with pytest.raises(pack("metalora.config").UserError, match="are wrong"):
        in_comfyui(backbone, meta=True, checkpointing=True)


def test_fp8_weights_give_the_gradients_of_the_numbers_they_stand_for():
    """Layers cast such weights in each forward pass; their copies must not all be kept for backward."""
    stored, plain = loaded(torch.float8_e4m3fn), loaded()
    with torch.inference_mode():
        plain.model.model.diffusion_model.load_state_dict(stored.model.model.diffusion_model.state_dict())
    assert stored.dtype == torch.float32
    for backbone, casts in ((stored, True), (plain, False)):
        with backbone.denoiser() as denoiser:
            assert denoiser.casts_weights == denoiser.recomputing.on == casts
    found, wanted = (in_comfyui(backbone, meta=True, checkpointing=False) for backbone in (stored, plain))
    assert max(errors(found, wanted).values()) < 1e-5


def test_flux_dev_itself_has_every_site_and_the_core_knows_every_key():
    """On its real class and sizes, as the core detects them from its file's keys, without its 24 GB."""
    found_in, dev = pack("nodes.bridge.sites"), FluxShape(3072, 19, 38, 64, 4096, 768, guidance=True)
    import comfy.model_detection  # in a prompt it is there already

    keys = json.loads((ROOT / "tests" / "data" / "flux1_dev_keys.json").read_text())["bfl"]["keys"]
    state = {key: torch.empty(shape, dtype=torch.bfloat16, device="meta") for key, shape in keys.items()}
    config = comfy.model_detection.model_config_from_unet(state, "")
    config.set_inference_dtype(torch.bfloat16, None)
    model = SimpleNamespace(model=config.get_model({}, device=torch.device("meta")))
    network = model.model.diffusion_model
    assert vars(found_in.architecture_of(model, network)) == vars(dev)
    found = dev.fused
    assert sum(len(own) for _, own in linears(network, found)) == len(found)
    named = {(s.name, s.module, s.in_features, s.out_features, s.start) for s in found}
    _, listed = found_in.named_sites(model, network)
    assert {(s.name, s.module, s.in_features, s.out_features, s.start) for s in listed} == named, "the core's own table"
    lora = {site.name: (torch.zeros(1, site.in_features), torch.zeros(site.out_features, 1)) for site in found}
    for key_format in KEY_FORMATS:
        assert pack("nodes.bridge.models").unmatched_keys(model, format_lora(lora, key_format, dev)) == []


@pytest.mark.parametrize("guarded", [True, False])
def test_weights_cast_into_a_buffer_that_is_used_again_need_copies_of_their_own(monkeypatch, guarded: bool):
    """As newer ComfyUIs cast what does not stay on the device; autograd does not see the buffer change."""
    import comfy.model_management

    buffers: dict[tuple, Tensor] = {}

    def into_a_buffer(weight, *_where, **_how):
        if weight.ndim == 1:
            return weight.detach()  # older ComfyUIs call this for norms too
        buffer = buffers.setdefault(tuple(weight.shape), torch.empty_like(weight.data))
        buffer.data.copy_(weight.data)
        return buffer

    backbone, training = loaded(), pack("nodes.bridge.training")
    for layer in backbone.model.model.diffusion_model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.comfy_cast_weights = True
    monkeypatch.setattr(comfy.model_management, "cast_to", into_a_buffer)
    if not guarded:
        monkeypatch.setattr(training, "own_copies", lambda network: contextlib.nullcontext())
    found = in_comfyui(backbone, meta=True, checkpointing=True, checked=False)
    worst = max(errors(found, reference(meta=True)).values())
    print(f"worst relative error, copies of their own {guarded}: {worst:.1e}")
    assert worst < 1e-5 if guarded else worst > 0.05, worst


def test_newer_comfyuis_are_told_that_this_is_training_so_that_they_leave_kernels_without_backward(backbone):
    import comfy.model_management

    before = vars(comfy.model_management).get("in_training", False)
    with backbone.denoiser():
        assert comfy.model_management.in_training
    assert vars(comfy.model_management).get("in_training", False) == before


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_check_of_a_users_model_finds_a_kernel_that_loses_a_gradient(backbone, monkeypatch, lost: int):
    """As an attention whose rotation of queries or keys has no backward."""
    attention = pack("nodes.bridge.training").differentiable_attention

    def losing(original, *streams, **options):
        return attention(original, *(x.detach() if i == lost else x for i, x in enumerate(streams)), **options)

    monkeypatch.setattr(pack("nodes.bridge.models"), "differentiable_attention", losing)
    with backbone.denoiser() as denoiser, pytest.raises(pack("metalora.config").UserError, match="qkv gets none"):
        gradients(denoiser, adapters(fused=True, meta=True), torch.float32)

"""Gradients through ComfyUI's own FLUX, against diffusers' FLUX in float64: right with the guard, wrong without it."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch
from comfyui import ROOT, needs_comfyui, pack
from torch import Tensor

from metalora.backbones.flux import FluxDenoiser
from metalora.backbones.flux_configs import scheduler_config
from metalora.backbones.keys import FluxShape, sites
from metalora.backbones.lora_formats import KEY_FORMATS, format_lora
from metalora.backbones.protocol import Prompt
from metalora.backbones.tiny_flux import SHAPE, TinyFlux
from metalora.method.adapter import Adapters, linears, new_adapters, random_meta_down

pytestmark = needs_comfyui
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    bridge, small = pack("nodes.bridge.small"), pack("nodes.small_flux")
    parts = pack("metalora.backbones.tiny_flux").TinyFlux()
    with torch.inference_mode():  # as a loader node runs
        return small.load_small_flux(parts, bridge.small_model)


def denoiser_of(model, network, checkpointing: bool):
    made = pack("nodes.backbone").ComfyDenoiser(network, SHAPE, CPU, torch.float32, casts_weights=False)
    made.checkpointing(checkpointing)
    return made


def unguarded(block):
    """A whole block checkpointed without copies, as the core's trainer does it."""

    def replacement(given, _original):
        names = [name for name in ("img", "txt") if name in given]
        rest = {name: value for name, value in given.items() if name not in names}
        made = torch.utils.checkpoint.checkpoint(
            lambda: block(*(given[name] for name in names), **rest), use_reentrant=False
        )
        return dict(zip(names, made if len(names) > 1 else (made,), strict=True))

    return replacement


def adapters(fused: bool, *, meta: bool) -> Adapters:
    found = sites(SHAPE, "all", fused=fused)
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
    tokens = drawn(1, 12, SHAPE.joint_dim).requires_grad_(inputs_too)
    prompt = Prompt(tokens=tokens, pooled=drawn(1, SHAPE.pooled_dim))
    latents.requires_grad_(inputs_too)
    with worn.attached(denoiser.network):
        made = denoiser(latents, torch.tensor([0.25, 0.75], dtype=dtype), prompt)
        (made - target).square().mean().backward()
    return {
        f"{name}.{role}": weight.grad
        for name, adapter in worn.by_name.items()
        for role, weight in adapter.weights().items()
    }


def reference(*, meta: bool) -> dict[str, Tensor]:
    network = TinyFlux().transformer("cpu", torch.float64).requires_grad_(False)
    worn = adapters(fused=False, meta=meta)
    for adapter in worn.by_name.values():
        adapter.double()
    denoiser = FluxDenoiser(network, scheduler_config(SHAPE), takes_guidance=True)
    return gradients(denoiser, worn, torch.float64)


def errors(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    return {name: ((found[name].double() - truth[name]).norm() / truth[name].norm()).item() for name in truth}


@pytest.mark.parametrize("meta", [True, False], ids=["three layers", "plain LoRA"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_every_adapters_gradient_is_that_of_the_reference(model, checkpointing: bool, meta: bool):
    network = model.model.diffusion_model
    with pack("nodes.gradients").trainable(network):
        found = gradients(denoiser_of(model, network, checkpointing), adapters(fused=True, meta=meta), torch.float32)
    worst = max(errors(found, reference(meta=meta)).items(), key=lambda item: item[1])
    print(f"worst relative error: {worst[1]:.1e}")
    assert worst[1] < 1e-5, worst


def test_without_the_guard_checkpointed_gradients_are_wrong_and_nothing_says_so(model):
    gradients_module, network = pack("nodes.gradients"), model.model.diffusion_model
    denoiser = denoiser_of(model, network, checkpointing=False)
    kernels = pack("nodes.bridge.training").differentiable_kernels
    blocks = {("double_block", i): unguarded(block) for i, block in enumerate(network.double_blocks)}
    blocks |= {("single_block", i): unguarded(block) for i, block in enumerate(network.single_blocks)}
    denoiser.options |= {"patches_replace": {"dit": blocks}}
    with gradients_module.frozen_weights(network), kernels():
        # As in the core's trainer, which trains the first layers too, so that what enters the blocks needs a gradient.
        found = gradients(denoiser, adapters(fused=True, meta=True), torch.float32, inputs_too=True)
    worst = max(errors(found, reference(meta=True)).values())
    print(f"worst relative error without the guard: {worst:.1e}")
    assert worst > 0.05


def test_without_the_guard_and_without_checkpointing_autograd_notices(model):
    network = model.model.diffusion_model
    with (
        pack("nodes.gradients").frozen_weights(network),
        pack("nodes.bridge.training").differentiable_kernels(),
        pytest.raises(RuntimeError, match="modified by an inplace operation"),
    ):
        gradients(denoiser_of(model, network, False), adapters(fused=True, meta=True), torch.float32)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def network(request):
    parts = pack("metalora.backbones.tiny_flux").TinyFlux()
    made = pack("nodes.small_flux").load_small_flux(parts, pack("nodes.bridge.small").small_model)
    return made.model.diffusion_model.to(request.param)


def test_the_check_of_a_users_model_passes_right_gradients(network):
    with pack("nodes.gradients").trainable(network):
        pack("nodes.gradient_check").check_gradients(network, CPU, network.img_in.weight.dtype, {})


@pytest.mark.parametrize("missing", ["guarded_norms", "recomputed"])
def test_the_check_of_a_users_model_finds_either_half_of_the_guard_missing(network, monkeypatch, missing: str):
    guard, check = pack("nodes.gradients"), pack("nodes.gradient_check")
    without = {"guarded_norms": lambda network: contextlib.nullcontext(), "recomputed": unguarded}
    monkeypatch.setattr(guard if missing == "guarded_norms" else check, missing, without[missing])
    with guard.trainable(network), pytest.raises(pack("metalora.config").UserError, match="are wrong"):
        check.check_gradients(network, CPU, network.img_in.weight.dtype, {})


def test_fp8_weights_give_the_gradients_of_the_numbers_they_stand_for():
    """Layers cast such weights in each forward pass; their copies must not all be kept for backward."""
    bridge, small = pack("nodes.bridge.small"), pack("nodes.small_flux")
    parts = pack("metalora.backbones.tiny_flux").TinyFlux()
    stored = small.load_small_flux(parts, lambda read: bridge.small_model(read, torch.float8_e4m3fn))
    plain = small.load_small_flux(parts, bridge.small_model)
    plain.model.diffusion_model.load_state_dict(stored.model.diffusion_model.state_dict())
    assert pack("nodes.bridge.models").compute_dtype(stored) == torch.float32
    found = {}
    for kind, made in (("fp8", stored), ("float32", plain)):
        network = made.model.diffusion_model
        casts = bool(pack("nodes.bridge.training").casting_layers(network))
        assert casts == (kind == "fp8")
        denoiser = pack("nodes.backbone").ComfyDenoiser(network, SHAPE, CPU, torch.float32, casts)
        denoiser.checkpointing(False)
        assert ("patches_replace" in denoiser.options) == (kind == "fp8")
        with pack("nodes.gradients").trainable(network):
            found[kind] = gradients(denoiser, adapters(fused=True, meta=True), torch.float32)
    assert max(errors(found["fp8"], found["float32"]).values()) < 1e-5


def test_flux_dev_itself_has_every_site_and_the_core_knows_every_key():
    """On its real class and sizes, as the core detects them from its file's keys, without its 24 GB."""
    models, dev = pack("nodes.bridge.models"), FluxShape(3072, 19, 38, 64, 4096, 768, guidance=True)
    import comfy.model_detection  # in a prompt it is there already

    keys = json.loads((ROOT / "tests" / "data" / "flux1_dev_keys.json").read_text())["bfl"]["keys"]
    state = {key: torch.empty(shape, dtype=torch.bfloat16, device="meta") for key, shape in keys.items()}
    config = comfy.model_detection.model_config_from_unet(state, "")
    config.set_inference_dtype(torch.bfloat16, None)
    model = SimpleNamespace(model=config.get_model({}, device=torch.device("meta")))
    assert vars(models.flux_shape(model)) == vars(dev)
    found = sites(dev, "all", fused=True)
    assert sum(len(own) for _, own in linears(models.network_of(model), found)) == len(found)
    lora = {site.name: (torch.zeros(1, site.in_features), torch.zeros(site.out_features, 1)) for site in found}
    for key_format in KEY_FORMATS:
        assert pack("nodes.bridge.loras").unmatched_keys(model, format_lora(lora, key_format, dev)) == []


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

    parts, training = pack("metalora.backbones.tiny_flux").TinyFlux(), pack("nodes.bridge.training")
    made = pack("nodes.small_flux").load_small_flux(parts, pack("nodes.bridge.small").small_model)
    network = made.model.diffusion_model
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.comfy_cast_weights = True
    monkeypatch.setattr(comfy.model_management, "cast_to", into_a_buffer)
    if not guarded:
        monkeypatch.setattr(training, "own_copies", lambda network: contextlib.nullcontext())
    denoiser = pack("nodes.backbone").ComfyDenoiser(network, SHAPE, CPU, torch.float32, casts_weights=True)
    with pack("nodes.gradients").trainable(network):
        found = gradients(denoiser, adapters(fused=True, meta=True), torch.float32)
    worst = max(errors(found, reference(meta=True)).values())
    print(f"worst relative error, copies of their own {guarded}: {worst:.1e}")
    assert worst < 1e-5 if guarded else worst > 0.05, worst


def test_newer_comfyuis_are_told_that_this_is_training_so_that_they_leave_kernels_without_backward(model):
    import comfy.model_management

    before = vars(comfy.model_management).get("in_training", False)
    with pack("nodes.gradients").trainable(model.model.diffusion_model):
        assert comfy.model_management.in_training
    assert comfy.model_management.in_training == before


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_check_of_a_users_model_finds_a_kernel_that_loses_a_gradient(network, lost: int):
    """As an attention whose rotation of queries or keys has no backward."""
    guard, check = pack("nodes.gradients"), pack("nodes.gradient_check")

    def losing(attention, *streams, **options):
        streams = tuple(x.detach() if i == lost else x for i, x in enumerate(streams))
        return pack("nodes.bridge.training").differentiable_attention(attention, *streams, **options)

    options, dtype = {"optimized_attention_override": losing}, network.img_in.weight.dtype
    with guard.trainable(network), pytest.raises(pack("metalora.config").UserError, match="qkv gets none"):
        check.check_gradients(network, CPU, dtype, options)


def test_training_leaves_the_network_as_it_was_also_after_an_error(model):
    network = model.model.diffusion_model

    def state():
        weights = {name: (id(weight), weight.requires_grad) for name, weight in network.named_parameters()}
        hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())
        return weights, hooks, sorted(vars(network))

    before = state()
    with pytest.raises(ZeroDivisionError), pack("nodes.gradients").trainable(network):
        raise ZeroDivisionError
    assert state() == before

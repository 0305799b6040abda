"""Gradients through ComfyUI's own FLUX, against float64: right with the guard, wrong without it."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch
from comfy_families import adapters_of, backbone_of, build, exact_gradients, gradients, worst
from comfyui import ROOT, needs_comfyui, pack
from torch import Tensor

from metalora.backbones.architecture import KEY_FORMATS, format_lora
from metalora.backbones.families.flux import FluxShape
from metalora.method.adapter import linears

pytestmark = [needs_comfyui, pytest.mark.slow]


@pytest.fixture(scope="module")
def truth() -> dict[str, Tensor | None]:
    return exact_gradients("flux1")


def found(model=None, **how: bool) -> dict[str, Tensor | None]:
    return gradients("flux1", model or build("flux1"), **how)


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


def test_without_the_guard_checkpointed_gradients_are_wrong_in_silence_and_others_an_error(truth, monkeypatch):
    unguarded(monkeypatch)
    # As in the core's trainer, which trains the first layers too, so that what enters the blocks needs a gradient.
    error = worst(found(checkpointing=True, check=False, inputs_too=True), truth)
    print(f"worst relative error without the guard: {error:.1e}")
    assert error > 0.05
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found(check=False)


@pytest.mark.parametrize("missing", ["guarded_norms", "own_copy"])
def test_the_check_of_a_users_model_finds_either_half_of_the_guard_missing(monkeypatch, missing: str):
    without = {"guarded_norms": lambda network: contextlib.nullcontext(), "own_copy": lambda value: value}
    monkeypatch.setattr(pack("nodes.gradients"), missing, without[missing])
    with pytest.raises(pack("metalora.config").UserError, match="are wrong"):
        found(checkpointing=True)


def test_fp8_weights_give_the_gradients_of_the_numbers_they_stand_for():
    """Layers cast such weights in each forward pass; their copies must not all be kept for backward."""
    with torch.inference_mode():  # as a loader node runs
        stored, plain = build("flux1", torch.float8_e4m3fn), build("flux1")
        plain.model.diffusion_model.load_state_dict(stored.model.diffusion_model.state_dict())
    for model, casts in ((stored, True), (plain, False)):
        backbone = backbone_of("flux1", model)
        assert backbone.dtype == torch.float32
        with backbone.denoiser() as denoiser:
            assert denoiser.casts_weights == denoiser.recomputing.on == casts
    assert worst(found(stored), found(plain)) < 1e-5


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
def test_weights_cast_into_a_buffer_that_is_used_again_need_copies_of_their_own(truth, monkeypatch, guarded: bool):
    """As newer ComfyUIs cast what does not stay on the device; autograd does not see the buffer change."""
    import comfy.model_management

    buffers: dict[tuple, Tensor] = {}

    def into_a_buffer(weight, *_where, **_how):
        if weight.ndim == 1:
            return weight.detach()  # older ComfyUIs call this for norms too
        buffer = buffers.setdefault(tuple(weight.shape), torch.empty_like(weight.data))
        buffer.data.copy_(weight.data)
        return buffer

    model, training = build("flux1"), pack("nodes.bridge.training")
    for layer in model.model.diffusion_model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.comfy_cast_weights = True
    monkeypatch.setattr(comfy.model_management, "cast_to", into_a_buffer)
    if not guarded:
        monkeypatch.setattr(training, "own_copies", lambda network: contextlib.nullcontext())
    error = worst(found(model, checkpointing=True, check=False), truth)
    print(f"worst relative error, copies of their own {guarded}: {error:.1e}")
    assert error < 1e-4 if guarded else error > 0.05, error


def test_a_base_is_the_same_one_while_the_sampler_has_a_lora_in_its_weights():
    """A stopped training is found by its base's fingerprint, also after images of what was learned before."""
    model, models = build("flux1"), pack("nodes.bridge.models")
    import comfy.model_management

    backbone = backbone_of("flux1", model)
    before = backbone.fingerprint("transformer")
    lora = format_lora(pack("metalora.method.adapter").fold_all(adapters_of(backbone)), "bfl", backbone.architecture)
    own = {name: one.detach().clone() for name, one in models.network_of(model).named_parameters()}
    comfy.model_management.load_models_gpu([models.with_lora(model, lora)])
    now = dict(models.network_of(model).named_parameters())
    assert any(not torch.equal(now[name], one) for name, one in own.items()), "the LoRA is in the weights"
    assert backbone_of("flux1", model).fingerprint("transformer") == before


def test_newer_comfyuis_are_told_that_this_is_training_so_that_they_leave_kernels_without_backward():
    backbone = backbone_of("flux1", build("flux1"))
    import comfy.model_management

    before = vars(comfy.model_management).get("in_training", False)
    with backbone.denoiser():
        assert comfy.model_management.in_training
    assert vars(comfy.model_management).get("in_training", False) == before


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_check_of_a_users_model_finds_a_kernel_that_loses_a_gradient(monkeypatch, lost: int):
    """As an attention whose rotation of queries or keys has no backward."""
    attention = pack("nodes.bridge.training").differentiable_attention

    def losing(original, *streams, **options):
        return attention(original, *(x.detach() if i == lost else x for i, x in enumerate(streams)), **options)

    monkeypatch.setattr(pack("nodes.bridge.models"), "differentiable_attention", losing)
    with pytest.raises(pack("metalora.config").UserError, match="qkv gets none"):
        found()

"""Every base that ComfyUI loads, as tiny random models of its real classes: gradients, LoRAs, refusals."""

import contextlib
from typing import Any

import pytest
import torch
from comfy_families import CPU, Vae, build, clip, known, latents, prompt
from comfyui import needs_comfyui, pack
from torch import Tensor

pytestmark = needs_comfyui
BASES = ["flux1", "flux2", "zimage", "qwen", "krea2", "sd3", "chroma", "sdxl", "lumina2"]
TIMES = torch.tensor([0.25, 0.75])


@pytest.fixture(params=BASES)
def family(request) -> str:
    pack("nodes.bridge.models")
    if not known(request.param):
        pytest.skip(f"this ComfyUI has no {request.param}")
    return request.param


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


def gradients(family: str, model: Any, *, checkpointing: bool = False, dtype: torch.dtype = torch.float32):
    backbone = backbone_of(family, model)
    adapters, clean = adapters_of(backbone, dtype), latents(family)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(6))
    flow, words = pack("metalora.method.flow"), {name: cast(part, dtype) for name, part in prompt(family).items()}
    clean, noise, t = clean.to(dtype), noise.to(dtype), TIMES.to(dtype)
    with backbone.denoiser() as denoiser, adapters.attached(denoiser.network):
        denoiser.checked = dtype == torch.float64
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


@contextlib.contextmanager
def float_means_double(monkeypatch):
    """ComfyUI's networks go through float32 in places; the reference does not."""
    to_float = Tensor.float
    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "float", lambda self: self if self.dtype == torch.float64 else to_float(self))
        yield


def worst(found: dict[str, Tensor | None], truth: dict[str, Tensor | None]) -> float:
    errors = []
    for name, wanted in truth.items():
        if wanted is None or not wanted.any():
            assert found[name] is None or not found[name].any(), name
        else:
            assert found[name] is not None, f"{name} has no gradient"
            errors.append(((found[name].double() - wanted.double()).norm() / wanted.double().norm()).item())
    assert len(errors) > 0.8 * len(truth)
    return max(errors)


def test_every_adapters_gradient_is_that_of_float64_however_the_model_is_kept(family: str, monkeypatch):
    with float_means_double(monkeypatch):
        truth = gradients(family, build(family, torch.float64), dtype=torch.float64)
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
    loras, formats = pack("nodes.bridge.loras"), pack("metalora.backbones.lora_formats")
    model, words, x = build(family), prompt(family), latents(family)
    backbone = backbone_of(family, model)
    adapters = adapters_of(backbone)
    lora = formats.format_lora(pack("metalora.method.merge").fold_all(adapters), "diffusers", backbone.architecture)
    assert loras.unmatched_keys(model, lora) == []
    with torch.no_grad():
        with backbone.denoiser() as denoiser:
            plain = denoiser(x, TIMES, words)
            with adapters.attached(denoiser.network):
                live = denoiser(x, TIMES, words)
        with backbone_of(family, loras.with_lora(model, lora)).denoiser() as denoiser:
            stock = denoiser(x, TIMES, words)
        with backbone.denoiser() as denoiser:
            again = denoiser(x, TIMES, words)
    error = ((stock - live).norm() / (live - plain).norm()).item()
    print(f"{family}: {len(adapters.sites)} sites, stock loader {error:.1e} of the LoRA's effect")
    assert error < 1e-4
    assert torch.equal(again, plain), "the model is what it was"

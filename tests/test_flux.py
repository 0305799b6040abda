"""What is FLUX.1's alone: packing, the schedule, its key formats; what holds for every base is in test_bases.py."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from tiny_bases import our_image, strong_adapters

from metalora.backbones.families.flux import schedule, scheduler_config
from metalora.backbones.family import pack, positions, unpack
from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.tiny_flux import SHAPE
from metalora.jobs.lora import load_lora, lora_adapters
from metalora.jobs.training_files import save_lora
from metalora.method.adapter import fold_all


@pytest.mark.parametrize("key_format", ["diffusers", "bfl", "kohya"])
def test_a_lora_file_of_every_key_format_gives_the_live_adapters_image(
    tiny: PipelineBackbone, tmp_path: Path, key_format: str
):
    adapters = strong_adapters(tiny, strength=0.2)
    save_lora(tmp_path / "person.safetensors", fold_all(adapters), key_format, SHAPE, {"base": tiny.name})
    lora, _ = load_lora(tmp_path / "person.safetensors", tiny)
    assert (our_image(tiny, lora_adapters(lora, tiny, 1.0)) - our_image(tiny, adapters)).abs().max() < 1e-4


def test_packing_positions_and_the_schedule_are_the_pipelines():
    latents = torch.randn(2, 16, 8, 12)
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 16, 8, 12))
    assert torch.equal(unpack(pack(latents), 8, 12), latents)
    assert torch.equal(positions(4, 6), FluxPipeline._prepare_latent_image_ids(1, 4, 6, "cpu", torch.float32))
    small, large = (schedule(10, tokens, scheduler_config(SHAPE)) for tokens in (256, 4096))
    assert small[0] == large[0] == 1
    assert small[-1] == large[-1] == 0
    assert (large[1:-1] > small[1:-1]).all()
    assert (large.diff() < 0).all()


def test_prompts_and_latents_are_the_same_each_time_and_differ_between_inputs(tiny: PipelineBackbone):
    with tiny.text_encoders() as encode:
        same, again, other = encode("a woman"), encode("a woman"), encode("a man")
    assert torch.equal(same["tokens"], again["tokens"])
    assert not torch.allclose(same["tokens"], other["tokens"])
    assert not torch.allclose(same["pooled"], other["pooled"])
    image = torch.rand(3, 64, 64)
    with tiny.autoencoder() as autoencoder:
        assert torch.equal(autoencoder.encode(image), autoencoder.encode(image))
        assert autoencoder.decode(autoencoder.encode(image)).shape == image.shape


def test_a_part_is_freed_when_its_context_ends(tiny: PipelineBackbone):
    with tiny.denoiser() as denoiser:
        pass
    with pytest.raises(AttributeError):
        _ = denoiser.network

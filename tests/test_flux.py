"""FLUX through diffusers' classes: our prompts, latents, velocity and sampling against diffusers' own pipeline."""

import logging
from pathlib import Path

import pytest
import torch
from comfy_files import save_pipeline
from diffusers import FluxPipeline
from tiny_bases import GUIDANCE, PROMPT, SEED, SIZE, STEPS, our_image, prompts_of, strong_adapters
from torch import Tensor

from metalora.backbones.families.flux import schedule, scheduler_config
from metalora.backbones.family import pack, positions, unpack
from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.tiny_flux import SHAPE, TinyFlux
from metalora.jobs.lora import load_lora, lora_adapters
from metalora.jobs.training_files import save_lora
from metalora.method.adapter import fold_all


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> FluxPipeline:
    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(TinyFlux(), folder)
    pipe = FluxPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image_of(pipe: FluxPipeline) -> Tensor:
    return pipe(
        PROMPT,
        width=SIZE[0],
        height=SIZE[1],
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(SEED),
        max_sequence_length=TinyFlux.max_tokens,
        output_type="pt",
    ).images[0]


def test_our_image_is_the_pipelines_image(tiny: PipelineBackbone, pipeline: FluxPipeline):
    assert (our_image(tiny) - image_of(pipeline)).abs().max() < 1e-4


def test_the_lora_file_gives_the_live_adapters_image_in_the_pipeline_with_no_unmatched_key(
    tiny: PipelineBackbone, pipeline: FluxPipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    adapters = strong_adapters(tiny, strength=0.2)
    save_lora(tmp_path / "person.safetensors", fold_all(adapters), "diffusers", SHAPE, {"base": tiny.name})
    live = our_image(tiny, adapters)
    with caplog.at_level(logging.WARNING):
        pipeline.load_lora_weights(tmp_path, weight_name="person.safetensors")
    loaded = {name for name, _ in pipeline.transformer.named_parameters() if "lora_A" in name}
    with_lora = image_of(pipeline)
    pipeline.unload_lora_weights()
    no_text_encoder_lora = "No LoRA keys associated to CLIPTextModel"  # what diffusers says of every transformer LoRA
    assert not [record.message for record in caplog.records if no_text_encoder_lora not in record.message]
    assert len(loaded) == len(adapters.by_name)
    assert (with_lora - live).abs().max() < 1e-4
    assert (live - our_image(tiny)).abs().max() > 0.05, "the LoRA must be visible for the comparison to mean anything"


@pytest.mark.parametrize("key_format", ["diffusers", "bfl", "kohya"])
def test_a_lora_file_of_every_key_format_gives_the_live_adapters_image(
    tiny: PipelineBackbone, tmp_path: Path, key_format: str
):
    adapters = strong_adapters(tiny, strength=0.2)
    save_lora(tmp_path / "person.safetensors", fold_all(adapters), key_format, SHAPE, {"base": tiny.name})
    lora, _ = load_lora(tmp_path / "person.safetensors", tiny)
    assert (our_image(tiny, lora_adapters(lora, tiny, 1.0)) - our_image(tiny, adapters)).abs().max() < 1e-4


def test_packing_and_positions_are_the_pipelines(pipeline: FluxPipeline):
    latents = torch.randn(2, 16, 8, 12)
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 16, 8, 12))
    assert torch.equal(unpack(pack(latents), 8, 12), latents)
    assert torch.equal(positions(4, 6), FluxPipeline._prepare_latent_image_ids(1, 4, 6, "cpu", torch.float32))


def test_a_larger_image_is_sampled_at_noisier_times():
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


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_through_flux_match_a_finite_difference_in_fp64(
    tiny: PipelineBackbone, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
):
    adapters = strong_adapters(tiny, strength=0.2)
    for adapter in adapters.by_name.values():
        adapter.double()
    (prompt,) = prompts_of(tiny, PROMPT)
    latents, direction = torch.randn(2, 1, 16, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.4], dtype=torch.float64)
    # diffusers rotates queries and keys in float32, and we return float32: here both are to stay in float64.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    fp64 = PipelineBackbone(TinyFlux(), torch.device("cpu"), torch.float64)
    with fp64.denoiser() as denoiser, adapters.attached(denoiser.network):
        denoiser.checkpointing(checkpointing)

        def value() -> Tensor:
            return (denoiser(latents, t, prompt) * direction).sum()

        value().backward()
        with torch.no_grad():
            for name in ("transformer_blocks.0.attn.add_k_proj", "single_transformer_blocks.1.proj_mlp"):
                for weight in adapters.by_name[name].weights().values():
                    flat, index = weight.view(-1), weight.numel() // 2
                    before = flat[index].item()
                    flat[index] = before + 1e-5
                    above = value().item()
                    flat[index] = before - 1e-5
                    below = value().item()
                    flat[index] = before
                    expected = (above - below) / 2e-5
                    assert weight.grad.view(-1)[index].item() == pytest.approx(expected, rel=1e-5, abs=1e-8)

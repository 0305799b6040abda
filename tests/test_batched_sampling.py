"""Images made together are the images made alone."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks import planned

from metalora.backbones.pipeline import PipelineBackbone, Speed
from metalora.backbones.tiny_flux import TinyFlux
from metalora.jobs import run
from metalora.jobs.benchmark import images
from metalora.jobs.benchmark.plan import Layout, filled_texts
from metalora.jobs.benchmark.train import Bench
from metalora.jobs.training_files import save_lora
from metalora.method.adapter import Adapters, fold_all, new_adapters
from metalora.method.flow import joined
from metalora.store.cache import Cache
from metalora.store.images import read_photo

pytestmark = pytest.mark.slow


def test_each_image_of_a_batch_has_its_own_prompt_and_noise(tiny: PipelineBackbone):
    with tiny.text_encoders() as encode:
        prompts = [encode(text) for text in ("a photo of a woman", "a red boat", "a photo of a woman")]
    seeds = [5, 5, 6]
    together = joined(prompts)
    with tiny.denoiser() as denoiser:
        latents = run(denoiser.sample(together, (64, 96), 4, 3.5, seeds))
        alone = [run(denoiser.sample(p, (64, 96), 4, 3.5, [seed])) for p, seed in zip(prompts, seeds, strict=True)]
        shared = run(denoiser.sample(prompts[0], (64, 96), 4, 3.5, [5, 6]))
    assert latents.shape == (3, 16, 12, 8)
    torch.testing.assert_close(latents, torch.cat(alone), rtol=0, atol=1e-4)
    torch.testing.assert_close(shared, latents[[0, 2]], rtol=0, atol=1e-4)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (latents[one] - latents[other]).abs().max() > 0.1


def test_a_merged_batch_gives_the_images_of_a_lora_that_acts_on_them_one_by_one(
    tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = planned(tmp_path, tiny, methods=("lora",), people=1, step_counts=(5,), images_at_once=4)
    with tiny.text_encoders() as encode:
        prompts = {text: encode(text) for text in filled_texts(plan.prompts)}
    batch = Bench(plan, Layout(tmp_path / "batch"), {}, tiny, prompts, warm_cache)
    single = replace(batch, plan=replace(plan, images_at_once=1), layout=Layout(tmp_path / "single"))
    without = replace(batch, layout=Layout(tmp_path / "without"))
    merged = images_of(batch, size=0.3)
    monkeypatch.setattr(
        images, "wearing_lora", lambda adapters, denoiser, _backbone: adapters.attached(denoiser.network)
    )
    for one, other, base in zip(merged, images_of(single, size=0.3), images_of(without, size=0.0), strict=True):
        assert (one - other).abs().max() < 1.5 / 255, "a step of 8 bits, where rounding tips it over"
        assert (one - base).abs().max() > 5 / 255
    assert len(merged) == 4


def test_weights_that_are_rounded_or_away_are_not_merged_into(tiny: PipelineBackbone, monkeypatch: pytest.MonkeyPatch):
    adapters = new_adapters(tiny.sites("all"), 1, torch.Generator().manual_seed(0))
    monkeypatch.setattr(Adapters, "attached", lambda _self, _network: "attached")
    for speed, acts in ((Speed(), False), (Speed(eight_bit=True), True), (Speed(swapped_blocks=3), True)):
        backbone = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, speed)
        worn = images.wearing_lora(adapters, SimpleNamespace(network=None), backbone)
        assert (worn == "attached") == acts, speed


def images_of(bench: Bench, size: float) -> list[torch.Tensor]:
    """All of the first person's, with a LoRA of that size."""
    backbone, person, (variant,) = bench.backbone, bench.plan.people[0], bench.plan.variants()
    generator = torch.Generator().manual_seed(0)
    adapters = new_adapters(backbone.sites("all"), 1, generator)
    for up in adapters.parameters(("up",)):
        up.data.normal_(0, size, generator=generator)
    save_lora(bench.layout.lora(variant, person), fold_all(adapters), "diffusers", backbone.architecture, {})
    with backbone.denoiser() as denoiser, backbone.autoencoder() as autoencoder:
        run(images.make_images(variant, person, bench, denoiser, autoencoder))
    return [read_photo(path) for path in sorted(bench.layout.run.rglob("*.png"))]

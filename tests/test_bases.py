"""What holds for every family of bases, on tiny random models of the real classes: against diffusers' pipelines."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from benchmarks import finished, planned
from runs import Stopped, personalized, stopping_after
from tiny_bases import (
    PIPELINES,
    PROMPT,
    SEED,
    SIZE,
    STEPS,
    Bases,
    our_image,
    prompts_of,
    save_tiny_base,
    strong_adapters,
)
from torch import Tensor, nn

from metalora.backbones.families import FAMILIES
from metalora.backbones.family import Family
from metalora.backbones.pipeline import PipelineBackbone, Speed
from metalora.backbones.pipeline_folder import PipelineFolder
from metalora.backbones.protocol import Prompt
from metalora.backbones.speed import Checkpointing
from metalora.backbones.tiny_flux import TinyFlux
from metalora.cli import main
from metalora.config import PersonalizeConfig, UserError
from metalora.jobs.lora import load_lora
from metalora.jobs.training_files import save_lora
from metalora.method.adapter import fold_all, merged, new_adapters
from metalora.method.flow import joined
from metalora.store.cache import Cache

CPU = torch.device("cpu")
GUIDANCE = {"flux.1": 3.5, "flux.2-klein": 4.0, "z-image": 3.0, "qwen-image": 4.0, "krea-2": 4.5, "sd3.5": 4.0}
TRAINED = ("flux.2-klein", "z-image")  # whole jobs


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(params=GUIDANCE)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def base(family: str, folders: Bases) -> PipelineBackbone:
    return PipelineBackbone(PipelineFolder(folders[family]), CPU, torch.float32)


def pipeline_of(folder: Path) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def their_image(pipeline: Any, family: str, guidance: float) -> Tensor:
    guided = {"guidance_scale": guidance}
    if family == "qwen-image":
        guided = {"true_cfg_scale": guidance, "negative_prompt": ""}
    if family == "flux.1":
        guided["max_sequence_length"] = TinyFlux.max_tokens
    return pipeline(
        **{"prompt": PROMPT, "width": SIZE[0], "height": SIZE[1], "num_inference_steps": STEPS, **guided},
        generator=torch.Generator().manual_seed(SEED),
        output_type="pt",
    ).images[0]


def velocity(denoiser: Any, prompt: Prompt, batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = denoiser.family.latent_shape(denoiser.network.config, *SIZE)
    latents = torch.randn((batch, *shape), generator=generator).to(dtype)
    return denoiser(latents, torch.linspace(0.3, 0.8, batch, dtype=dtype), prompt)


def test_our_image_is_the_pipelines_and_a_lora_file_goes_both_ways(
    base: PipelineBackbone, family: str, folders: Bases, tmp_path: Path
):
    pipeline, guidance = pipeline_of(folders[family]), GUIDANCE[family]
    plain = our_image(base, guidance=guidance)
    assert (plain - their_image(pipeline, family, guidance)).abs().max() < 1e-4
    unguided = our_image(base, guidance=min(base.family.guided_from, 1.0))
    assert (plain - unguided).abs().max() > 1e-2, "guidance matters"
    adapters = strong_adapters(base)
    save_lora(tmp_path / "person.safetensors", fold_all(adapters), "diffusers", base.architecture, {"base": base.name})
    pipeline.load_lora_weights(tmp_path, weight_name="person.safetensors")
    assert sum("lora_A" in name for name, _ in pipeline.transformer.named_parameters()) == len(adapters.sites)
    live = our_image(base, adapters, guidance)
    assert (live - plain).abs().max() > 1e-2
    assert (live - their_image(pipeline, family, guidance)).abs().max() < 2e-4
    # what diffusers writes of it is read back as the same LoRA
    from peft import get_peft_model_state_dict

    written = get_peft_model_state_dict(pipeline.transformer, adapter_name=pipeline.get_active_adapters()[0])
    type(pipeline).save_lora_weights(tmp_path / "theirs", transformer_lora_layers=written)
    theirs, left = load_lora(tmp_path / "theirs" / "pytorch_lora_weights.safetensors", base)
    assert not left
    for name, (down, up) in fold_all(adapters).items():
        torch.testing.assert_close(theirs[name][1] @ theirs[name][0], up @ down, rtol=1e-5, atol=1e-6)


def test_new_adapters_change_nothing_and_merged_ones_are_the_live_ones(base: PipelineBackbone):
    (prompt,) = prompts_of(base, PROMPT)
    fresh = new_adapters(base.sites("all"), 2, torch.Generator().manual_seed(0))
    adapters = strong_adapters(base)
    with base.denoiser() as denoiser, torch.no_grad():
        plain = velocity(denoiser, prompt)
        with fresh.attached(denoiser.network):
            assert torch.equal(velocity(denoiser, prompt), plain)
        with adapters.attached(denoiser.network):
            live = velocity(denoiser, prompt)
        with merged(adapters, denoiser.network):
            torch.testing.assert_close(velocity(denoiser, prompt), live, rtol=1e-3, atol=1e-4)
        assert torch.equal(velocity(denoiser, prompt), plain)
    assert (live - plain).abs().max() > 0.05


@pytest.mark.parametrize("meta", [True, False], ids=["meta-lora", "lora"])
def test_every_gradient_is_that_of_float64_with_and_without_checkpointing(base: PipelineBackbone, meta: bool):
    (prompt,) = prompts_of(base, PROMPT)
    adapters = strong_adapters(base, meta)
    weights = adapters.parameters(("mid", "up") if meta else ("down", "up"))

    def gradients(denoiser: Any, how: Checkpointing, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        denoiser.checkpointing(how)
        with adapters.attached(denoiser.network):
            loss = (velocity(denoiser, prompt, dtype=dtype) ** 2).mean()
            return [g for g in torch.autograd.grad(loss, weights, allow_unused=True) if g is not None]

    with base.denoiser() as denoiser:
        found = {how: gradients(denoiser, how) for how in Checkpointing}
        denoiser.network.double()
        for adapter in adapters.by_name.values():
            adapter.double()
        exact = gradients(denoiser, Checkpointing.NONE, torch.float64)
    for how, ours in found.items():
        assert len(ours) == len(exact)
        worst = max(float((a - b).norm() / (b.norm() + 1e-8)) for a, b in zip(ours, exact, strict=True))
        assert worst < 2e-3, (how, worst)
    assert sum(bool(gradient.any()) for gradient in exact) > 0.8 * len(weights)


def test_prompts_of_several_lengths_in_one_batch_give_what_each_gives_alone(base: PipelineBackbone):
    prompts = prompts_of(base, "a cat", "a photo of a woman who reads a newspaper on a beach in the rain " * 3)
    with base.denoiser() as denoiser, torch.no_grad():
        together = velocity(denoiser, joined(prompts))
        alone = [velocity(denoiser, prompt)[index] for index, prompt in enumerate(prompts)]
        other = velocity(denoiser, prompts[1])[0]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-3, atol=1e-4)
    assert (alone[0] - other).abs().max() > 1e-2, "the prompt matters"


@pytest.mark.parametrize("family", sorted(PIPELINES), indirect=True)  # FLUX.1's: test_generating_prompts.py
def test_the_end_of_a_prompt_that_nothing_reads_is_known(base: PipelineBackbone):
    long = "x" * (base.max_tokens + 40)
    unread = base.unread(long + " end")
    assert unread.endswith("end")
    read = (long + " end")[: -len(unread)]
    whole, cut, longer = prompts_of(base, long + " end", read, read[:-1])
    shared = min(whole["tokens"].shape[1], cut["tokens"].shape[1]) - 8  # what closes the template is cut off as well
    assert torch.equal(whole["tokens"][:, :shared], cut["tokens"][:, :shared])
    assert longer["tokens"].shape[1] <= cut["tokens"].shape[1]


def test_distilled_bases_are_not_guided(folders: Bases, tmp_path: Path):
    folder = save_tiny_base("flux.2-klein", tmp_path / "klein", is_distilled=True)
    base = PipelineBackbone(PipelineFolder(folder), CPU, torch.float32)
    assert torch.equal(our_image(base, guidance=4.0), our_image(base, guidance=1.0))
    assert (our_image(base, guidance=4.0) - their_image(pipeline_of(folder), "flux.2-klein", 4.0)).abs().max() < 1e-4


@pytest.mark.parametrize("family", TRAINED, indirect=True)
@pytest.mark.parametrize("swapped", [0, 3])
def test_blocks_in_8_bits_and_swapped_ones_run(base: PipelineBackbone, swapped: int):
    (prompt,) = prompts_of(base, PROMPT)
    with base.denoiser() as denoiser, torch.no_grad():
        plain = velocity(denoiser, prompt)
    base.speed = Speed(swapped_blocks=swapped, eight_bit=not swapped)
    with base.denoiser() as denoiser, torch.no_grad():
        other = velocity(denoiser, prompt)
    assert (other - plain).norm() / plain.norm() < (1e-6 if swapped else 0.05)


@pytest.mark.parametrize("family", TRAINED, indirect=True)
def test_a_person_a_benchmark_and_a_meta_down_from_the_command_line(
    here: Path, warm_cache: Cache, base: PipelineBackbone, family: str, folders: Bases, capsys: pytest.CaptureFixture
):
    own = ["--backbone", str(folders[family]), "--precision", "fp32"]
    fast = ["--resolution", "64", "--steps", "3", "--learning-rate", "1e-3"]
    people = str(Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark" / "manifest.jsonl")
    buckets = ["--objective", "paper", "--batch", "2", "--validation-people", "1", "--validation-steps", "2"]
    buckets += ["--bucket-steps", "3", "--warmup-steps", "1", "--bucket-people", "4"]
    assert main(["meta-train", people, "--class", "man", *own, *fast, *buckets, "--out", "man.safetensors"]) == 0
    person = ["personalize", "ada.jpg", *own, *fast]
    assert main([*person, "--meta-down", "man.safetensors", "--class", "man", "--out", "meta.safetensors"]) == 0
    assert main([*person, "--method", "lora", "--out", "plain.safetensors"]) == 0
    small = ["--width", "64", "--height", "64", "--sampling-steps", "2", "--compare"]
    assert main(["generate", "--lora", "meta.safetensors", "--prompt", "a man", *small, *own]) == 0
    assert main(["doctor", *own, "--resolution", "64"]) == 0
    assert base.name in capsys.readouterr().out
    planned(here / "plan", base, methods=("lora",), people=1, step_counts=(2,))
    assert b"lora" in finished(here / "plan", base, warm_cache)


@pytest.mark.slow
@pytest.mark.parametrize("family", TRAINED, indirect=True)
def test_a_stopped_run_goes_on_to_the_same_bytes(base: PipelineBackbone, portrait: Path, tmp_path: Path):
    config = PersonalizeConfig(steps=6, learning_rate=1e-3, save_every=3)
    personalize = partial(personalized, base, Cache(tmp_path / "cache"), portrait, config=config)
    whole, halves = tmp_path / "whole.safetensors", tmp_path / "halves.safetensors"
    personalize(whole)
    with pytest.raises(Stopped):
        personalize(halves, show=stopping_after(4, config.steps))
    assert not halves.exists()
    personalize(halves)
    assert halves.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_compiled_blocks_have_the_same_gradients(base: PipelineBackbone, monkeypatch: pytest.MonkeyPatch):
    """Each kind of block in one graph, left to eager kernels, so that rounding is all that may differ."""
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled(self, **options, backend="eager"))
    (prompt,) = prompts_of(base, PROMPT)
    adapters = strong_adapters(base)
    found = []
    for on in (False, True):
        base.speed = Speed(compiled=on)
        with base.denoiser() as denoiser, adapters.attached(denoiser.network):
            loss = (velocity(denoiser, prompt) ** 2).mean()
            grads = torch.autograd.grad(loss, adapters.parameters(("mid", "up")), allow_unused=True)
            found.append(torch.cat([grad.flatten() for grad in grads if grad is not None]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5 * float(found[0].abs().max()))


def test_what_is_no_base_of_ours_or_half_downloaded_is_told(tmp_path: Path, folders: Bases):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(UserError, match=r"StableDiffusionXLPipeline, which is not supported.*z-image"):
        _ = PipelineFolder(tmp_path).family
    with pytest.raises(UserError, match="Krea-2-Raw is gated: accept its licence on https"):
        PipelineFolder("krea/Krea-2-Raw").transformer("cpu", torch.float32)
    folder = shutil.copytree(folders["sd3.5"], tmp_path / "half")
    weights = next((folder / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"transformer.*is not a safetensors file, or not a whole one.*copy it again"):
        PipelineFolder(folder).transformer("cpu", torch.float32)


@pytest.mark.parametrize("family", FAMILIES[1:], ids=lambda family: family.name)
def test_a_version_of_diffusers_without_the_family_is_told_with_the_one_that_has_it(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": family.pipeline}))
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")
    if family.transformer in dir(diffusers):  # else the installed version is such a one
        monkeypatch.setattr(type(family), "transformer", "NoSuchTransformer2DModel")
    with pytest.raises(UserError, match=rf"needs diffusers {family.since} or later"):
        _ = PipelineFolder(tmp_path).architecture

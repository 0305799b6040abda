"""Whether stage 1 fits, before anything is loaded, against the tensors that are there; and how its base is run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_saved_activations import BF16, IMAGE, TEXT, bytes_of, forward, kept_for_backward, network, shape_of
from torch import nn

from metalora.backbones.families.flux import FluxShape
from metalora.backbones.pipeline import PipelineBackbone, Speed
from metalora.backbones.tiny_flux import TinyFlux
from metalora.cli import main
from metalora.config import UserError
from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs.memory import activation_numbers
from metalora.jobs.meta_train import memory
from metalora.method.across_photos import AcrossPhotos, HeadGenerator
from metalora.method.adapter import Adapters, Site, random_meta_down
from metalora.method.buckets import Person
from metalora.method.flow import generator_of
from metalora.method.meta_train import MetaTraining, per_sample_adapters
from metalora.store import files

CONFIG = MetaTrainConfig(objective="paper", batch=4, bucket_people=6, resolution=256)


def test_a_job_that_cannot_fit_is_refused_with_what_would(tiny: PipelineBackbone, monkeypatch: pytest.MonkeyPatch):
    need, saving = (
        memory.stage_one_memory(tiny, replace(CONFIG, gradient_checkpointing=on)).total for on in (False, True)
    )
    assert saving < need
    monkeypatch.setattr(memory, "free_memory", lambda device: need)
    memory.check_memory(tiny, CONFIG)
    monkeypatch.setattr(memory, "free_memory", lambda device: need - 1)
    with pytest.raises(UserError, match=r"Stage 1 at 256 px, batch 4, needs about .* Use --gradient-checkpointing"):
        memory.check_memory(tiny, CONFIG)
    memory.check_memory(tiny, replace(CONFIG, gradient_checkpointing=True))
    memory.check_memory(tiny, CONFIG, processes=2)  # two GPUs share the batch and the people
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # but on one machine's processors they share its memory
    with pytest.raises(UserError, match="are free"):
        memory.check_memory(tiny, CONFIG, processes=2)


def test_the_command_refuses_before_it_looks_at_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**6)
    command = ["meta-train", "nowhere", "--out", str(tmp_path / "x.safetensors"), "--backbone", "tiny"]
    assert main(command) == 1
    assert "Stage 1 at 128 px, batch 16, needs about" in capsys.readouterr().err


def test_the_adapters_estimate_agrees_with_the_tensors_of_a_step(tiny: PipelineBackbone):
    people = [Person(str(number), "woman", ((64, 64),)) for number in range(6)]
    down = random_meta_down(tiny.sites("all"), CONFIG.meta_rank, generator_of("down"))
    training = MetaTraining(tiny.sites("all"), down, [people], CONFIG)
    training.begin(0)
    training.down.step(1e-3)
    training.heads.load(torch.arange(4))
    for parameter in training.heads.parameters:
        parameter.grad = torch.ones_like(parameter)
    training.heads.step(1e-3, 0.0)
    heads, moments = training.heads, training.down.optimizer.state_dict()["state"][0]
    held = [training.down.flat, training.down.exchanged, moments["exp_avg"], moments["exp_avg_sq"]]
    held += [heads.weights, heads.mean, heads.square, heads.gradient]
    held += [tensor for parameter in heads.parameters for tensor in (parameter, parameter.grad)]
    estimated = memory.stage_one_memory(tiny, CONFIG).adapters
    assert 1 <= estimated / sum(tensor.nbytes for tensor in held) < 1.1  # it counts a temporary copy more


def of_paper(places: list[Site]) -> tuple[Adapters, int]:
    return per_sample_adapters(places, random_meta_down(places, 16, generator_of("heads")), CONFIG), 0


def of_across_photos(places: list[Site]) -> tuple[Adapters, int]:
    """Beside what a plain LoRA's layers keep, the matrices in the base's precision."""
    training = across_photos(places)
    training.set_heads(torch.randn(1, memory.EMBEDDING), 1)
    return training.adapters, sum(2 * (one.down.numel() + one.up.numel()) for one in training.by_name.values())


@pytest.mark.parametrize("made", [of_paper, pytest.param(of_across_photos, marks=pytest.mark.slow)])
def test_with_the_meta_down_trained_layers_keep_what_a_plain_loras_keep(made: Callable):
    def kept(shape: FluxShape) -> tuple[int, float]:
        adapters, copies = made(shape.sites("all"))
        model = nn.Module.to(network(shape), BF16)
        with adapters.attached(model):
            found = kept_for_backward(model, adapters.parameters(), lambda: forward(model, shape))
        return bytes_of(found), copies + 2 * activation_numbers(shape, TEXT + IMAGE, meta=False, checkpointing=False)

    small, large = kept(shape_of(1, 1)), kept(shape_of(2, 3))
    assert (large[1] - small[1]) / (large[0] - small[0]) == pytest.approx(1, abs=0.05)


ACROSS = MetaTrainConfig(batch=4, resolution=256)


def across_photos(places: list[Site]) -> AcrossPhotos:
    drawn = generator_of("down")
    faces = torch.randn(8, memory.EMBEDDING, generator=drawn)
    generator = HeadGenerator(faces, len(places), ACROSS.meta_rank, drawn)
    return AcrossPhotos(places, random_meta_down(places, ACROSS.meta_rank, drawn), generator, ACROSS)


@pytest.mark.slow
def test_the_adapters_estimate_across_photos_agrees_with_the_tensors_of_a_step(tiny: PipelineBackbone):
    training = across_photos(tiny.sites("all"))
    training.step(0, training.gradients[:-1].norm())
    training.set_heads(torch.randn(ACROSS.batch, memory.EMBEDDING), ACROSS.batch)
    gains = sum(adapter.gains.numel() * 4 for adapter in training.by_name.values())
    held = [training.flat, training.gradients]
    for moments in training.optimizer.state_dict()["state"].values():
        held += [moments["exp_avg"], moments["exp_avg_sq"]]
    estimated = memory.stage_one_memory(tiny, ACROSS).adapters
    assert estimated == pytest.approx(sum(tensor.nbytes for tensor in held) + 2 * gains, rel=0.001)


def test_the_people_count_for_the_paper_alone(tiny: PipelineBackbone):
    def adapters(**options: object) -> int:
        return memory.stage_one_memory(tiny, MetaTrainConfig(**options)).adapters

    assert adapters(bucket_people=1) == adapters(bucket_people=50)
    assert adapters(objective="paper", bucket_people=1) < adapters(objective="paper", bucket_people=50)


BENCHMARK = str(Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark" / "manifest.jsonl")
FAST = ["--objective", "paper", "--resolution", "64", "--steps", "2", "--batch", "2", "--backbone", "tiny"]
FAST += ["--bucket-steps", "2", "--warmup-steps", "1", "--bucket-people", "4", "--validation-people", "0"]


def test_how_the_base_is_run_is_in_the_meta_down_and_compiling_changes_nothing(
    here: Path, tiny: PipelineBackbone, monkeypatch: pytest.MonkeyPatch
):
    """Blocks are traced, but left to eager kernels: heads of another person in every sample, a Meta-Down that moves."""
    compiled, made = nn.Module.compile, {}
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled(self, **options, backend="eager"))
    torch._dynamo.reset()
    for flag in ("--no-compile", "--compile", "--eight-bit"):
        out = here / f"{flag}.safetensors"
        assert main(["meta-train", BENCHMARK, "--class", "man", *FAST, flag, "--out", str(out)]) == 0
        made[flag] = files.read(out, ("meta-down",))
    assert made["--eight-bit"][1]["base_fingerprint"].endswith("int8")
    plain, traced = made["--no-compile"][0], made["--compile"][0]
    assert all(torch.equal(traced[name], down) for name, down in plain.items())
    small = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, Speed(eight_bit=True))
    assert memory.stage_one_memory(tiny, CONFIG).weights == 4 * memory.stage_one_memory(small, CONFIG).weights

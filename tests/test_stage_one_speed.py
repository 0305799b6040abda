"""Stage 1 with the flags that say how the base is run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from metalora.backbones.pipeline import PipelineBackbone, PipelineDenoiser
from metalora.backbones.protocol import Prompt
from metalora.backbones.speed import Speed
from metalora.backbones.tiny_flux import TinyFlux
from metalora.cli import main
from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs.meta_train.memory import stage_one_memory
from metalora.method.adapter import random_meta_down
from metalora.method.buckets import Person
from metalora.method.flow import generator_of
from metalora.method.meta_train import Batch, MetaTraining, meta_train, planned
from metalora.store import files
from metalora.store.cache import Cache

BENCHMARK = str(Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark" / "manifest.jsonl")
FAST = ["--objective", "paper", "--resolution", "64", "--steps", "2", "--batch", "2", "--backbone", "tiny"]
FAST += ["--bucket-steps", "2", "--warmup-steps", "1", "--bucket-people", "4", "--validation-people", "0"]
CONFIG = MetaTrainConfig(
    objective="paper", steps=2, bucket_steps=2, warmup_steps=0, batch=2, bucket_people=3, learning_rate=1e-2
)


def test_an_8_bit_base_is_named_in_the_meta_down_and_counted_as_small(
    tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("METALORA_CACHE", str(warm_cache.folder))
    out = tmp_path / "man.safetensors"
    assert main(["meta-train", BENCHMARK, "--class", "man", *FAST, "--eight-bit", "--out", str(out)]) == 0
    _, metadata = files.read(out, ("meta-down",))
    assert metadata["base_fingerprint"].endswith("int8")
    small = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, Speed(eight_bit=True))
    assert stage_one_memory(tiny, CONFIG).weights == 4 * stage_one_memory(small, CONFIG).weights


def test_compiled_stage_one_is_stage_one(tiny: PipelineBackbone, monkeypatch: pytest.MonkeyPatch):
    """Traced, but left to eager kernels: heads of another person in every sample, a Meta-Down that moves."""
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled(self, **options, backend="eager"))
    torch._dynamo.reset()
    trained = []
    for on in (False, True):
        backbone = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, Speed(compiled=on))
        with backbone.denoiser() as denoiser:
            trained.append(meta_trained(backbone, denoiser))
    assert torch.equal(*trained)


def meta_trained(backbone: PipelineBackbone, denoiser: PipelineDenoiser) -> Tensor:
    """The Meta-Down after two steps, in one vector."""
    sites = backbone.sites("all")
    people = [Person(str(number), "person", ((64, 64),)) for number in range(3)]
    down = random_meta_down(sites, CONFIG.meta_rank, generator_of("down"))
    training = MetaTraining(sites, down, [people], CONFIG)
    with training.adapters.attached(denoiser.network):
        list(meta_train(denoiser, training, batches(training), CONFIG))
    return training.down.flat.detach().clone()


def batches(training: MetaTraining) -> Iterator[Batch]:
    for step, _, samples in planned(training, CONFIG):
        latents = [torch.randn(16, 8, 8, generator=generator_of("photo", one.position)) for one in samples]
        prompt = Prompt(tokens=torch.ones(len(samples), 8, 64), pooled=torch.ones(len(samples), 32))
        yield Batch(step, samples, torch.stack(latents), prompt)

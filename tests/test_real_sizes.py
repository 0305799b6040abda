"""Real bases' whole shapes with random weights, each in one file as users have it: loaded, two steps, a LoRA, memory.

    METALORA_REAL_SIZES=/a/folder/with/13/GB nice python -m pytest -s tests/test_real_sizes.py     # 20 GB, 10 minutes

Asked for by name alone: two minutes and 8 to 13 GB of memory and of disk a base.
"""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.training_step import SIZES, peak_memory
from metalora.backbones.architecture import format_lora
from metalora.backbones.bases import BASES
from metalora.backbones.family import PipelineDenoiser
from metalora.backbones.lora_reading import read_lora
from metalora.backbones.protocol import Prompt
from metalora.backbones.single_files import SingleFiles
from metalora.backbones.speed import Checkpointing
from metalora.config import PersonalizeConfig
from metalora.jobs.memory import training_memory
from metalora.method.adapter import fold_all, new_adapters, random_meta_down
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize
from metalora.store import files

FOLDER = os.environ.get("METALORA_REAL_SIZES")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FOLDER, reason="METALORA_REAL_SIZES names no folder")]
PIXELS, TOLERANCE, CONFIG = 64, 0.1, PersonalizeConfig(steps=2)


class Alone(SingleFiles):
    """A transformer's file with what the hub would say of it: no network is needed."""

    def __init__(self, name: str, path: Path):
        super().__init__(BASES[name].hub, {"transformer": path})
        self.index = {"_class_name": BASES[name].pipeline, "transformer": ["diffusers", SIZES[name].family.transformer]}
        self.told = dict(SIZES[name].family.skeleton(SIZES[name].config).config)

    def _config(self, component: str, default: str) -> dict[str, Any]:
        return self.told


def write_random(name: str, path: Path) -> None:
    """Of a size that lets a signal through: 1 / sqrt(inputs) of a layer, near 1 of a norm."""
    pool = torch.randn(2**24, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)

    def drawn(like: Tensor) -> Tensor:
        drawn = pool.repeat(-(-like.numel() // len(pool)))[: like.numel()].view(like.shape)
        return drawn * like[0].numel() ** -0.5 if like.ndim > 1 else 1 + 0.1 * drawn

    network = SIZES[name].family.skeleton(SIZES[name].config)
    save_file({key: drawn(like).contiguous() for key, like in network.state_dict().items()}, path)


@pytest.mark.parametrize("name", ["klein-4b", "z-image"])
def test_a_real_size_trains_and_takes_the_memory_that_was_estimated(name: str, tmp_path: Path):
    path = Path(FOLDER or "") / f"{name}.safetensors"
    if not path.exists():
        write_random(name, path)
    began, parts, size = time.monotonic(), Alone(name, path), SIZES[name]
    network = parts.transformer("cpu", torch.bfloat16).requires_grad_(False)
    loaded = time.monotonic() - began
    denoiser = PipelineDenoiser(size.family, network, {}, {})
    denoiser.checkpointing(Checkpointing.FULL)
    sites, generator = parts.architecture.sites("all"), torch.Generator().manual_seed(0)
    meta_down = random_meta_down(sites, CONFIG.meta_rank, generator)
    adapters = new_adapters(sites, CONFIG.rank, generator, meta_down=meta_down)
    prompt = Prompt({part: torch.randn(1, *shape, generator=generator) for part, shape in size.text.items()})
    latents = torch.randn(1, *size.family.latent_shape(network.config, PIXELS, PIXELS), generator=generator)
    with adapters.attached(network):
        people = [Person(TrainingImages([latents], prompt), 0)]
        steps = personalize(denoiser, adapters, new_optimizer(adapters, CONFIG), people, CONFIG)
        began = time.monotonic()
        assert next(steps).loss > 0
        seconds = time.monotonic() - began
        peak = 1e6 * peak_memory(steps, "cpu")
    assert all(up.abs().max() > 0 for up in adapters.parameters(("up",))), "every layer has learned"
    lora = tmp_path / "lora.safetensors"
    files.write(lora, format_lora(fold_all(adapters), "diffusers", parts.architecture), "lora", {})
    tensors, _ = files.read(lora, ("lora",))
    assert len(read_lora(tensors, parts.architecture).lora) == len(sites)

    weights = sum(weight.nbytes for weight in network.parameters())
    need = training_memory(
        parts.architecture,
        sites,
        size=(PIXELS, PIXELS),
        batch=1,
        rank=CONFIG.rank,
        meta_rank=CONFIG.meta_rank,
        bytes_per_number=2,
        checkpointing=Checkpointing.FULL,
        text_tokens=size.text["tokens"][0],
    )
    ratio = (need.weights + need.activations) / (weights + peak)
    print(
        f"{name}: {len(sites)} layers, loaded in {loaded:.0f} s, a step {seconds:.0f} s; weights "
        f"{weights / 1e9:.2f} GB and a step {peak / 1e6:.0f} MB, of which the estimate is {ratio:.3f}; "
        f"a LoRA of {lora.stat().st_size / 1e6:.1f} MB"
    )
    assert abs(ratio - 1) < TOLERANCE

"""The memory estimate of stage 1 across photos, against the tensors that are really there."""

import pytest
import torch
from saved import bytes_of, kept_for_backward
from test_saved_activations import BF16, IMAGE, TEXT, forward, network, shape_of
from torch import nn

from metalora.backbones.keys import FluxShape, sites
from metalora.backbones.memory import activation_numbers
from metalora.backbones.pipeline import PipelineBackbone
from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs.meta_train import memory
from metalora.method.across_photos import AcrossPhotos
from metalora.method.adapter import random_meta_down
from metalora.method.flow import generator_of
from metalora.method.head_generator import HeadGenerator

pytestmark = pytest.mark.slow

CONFIG = MetaTrainConfig(batch=4, resolution=256)


def training_of(places) -> AcrossPhotos:
    drawn = generator_of("down")
    faces = torch.randn(8, memory.EMBEDDING, generator=drawn)
    generator = HeadGenerator(faces, len(places), CONFIG.meta_rank, drawn)
    return AcrossPhotos(places, random_meta_down(places, CONFIG.meta_rank, drawn), generator, CONFIG)


def test_the_adapters_estimate_agrees_with_the_tensors_of_a_step(tiny: PipelineBackbone):
    training = training_of(tiny.sites("all"))
    training.step(0, training.gradients[:-1].norm())
    training.set_heads(torch.randn(CONFIG.batch, memory.EMBEDDING), CONFIG.batch)
    gains = sum(adapter.gains.numel() * 4 for adapter in training.by_name.values())
    held = [training.flat, training.gradients]
    for moments in training.optimizer.state_dict()["state"].values():
        held += [moments["exp_avg"], moments["exp_avg_sq"]]
    estimated = memory.stage_one_memory(tiny, CONFIG).adapters
    assert estimated == pytest.approx(sum(tensor.nbytes for tensor in held) + 2 * gains, rel=0.001)


def test_layers_keep_what_a_plain_loras_keep_and_the_matrices_in_the_bases_precision():
    def kept(shape: FluxShape) -> tuple[int, float]:
        places = sites(shape, "all", fused=False)
        training = training_of(places)
        training.set_heads(torch.randn(1, memory.EMBEDDING), 1)
        copies = sum(2 * (adapter.down.numel() + adapter.up.numel()) for adapter in training.by_name.values())
        model = nn.Module.to(network(shape), BF16)
        with training.adapters.attached(model):
            found = kept_for_backward(model, training.adapters.parameters(), lambda: forward(model, shape))
        activations = activation_numbers(shape, TEXT + IMAGE, meta=False, checkpointing=False)
        return bytes_of(found), copies + 2 * activations

    small, large = kept(shape_of(1, 1)), kept(shape_of(2, 3))
    assert (large[1] - small[1]) / (large[0] - small[0]) == pytest.approx(1, abs=0.05)


def test_the_people_count_for_the_paper_alone(tiny: PipelineBackbone):
    def adapters(**options: object) -> int:
        return memory.stage_one_memory(tiny, MetaTrainConfig(**options)).adapters

    assert adapters(bucket_people=1) == adapters(bucket_people=50)
    assert adapters(objective="paper", bucket_people=1) < adapters(objective="paper", bucket_people=50)

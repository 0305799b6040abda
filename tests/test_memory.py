"""Whether a job fits: decided by arithmetic before anything is loaded."""

from dataclasses import replace

import pytest

from metalora.backbones.flux import FluxBackbone
from metalora.config import CropConfig, PersonalizeConfig
from metalora.jobs import memory

CONFIG, CROPS = PersonalizeConfig(), CropConfig()


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    def set_free(gigabytes: float) -> None:
        monkeypatch.setattr(memory, "free_memory", lambda device: int(gigabytes * 1e9))

    return set_free


def test_activations_are_recomputed_only_where_they_would_not_fit(tiny: FluxBackbone, free):
    plain, saving = (memory.estimate(tiny, CONFIG, CROPS, checkpointing=on).total / 1e9 for on in (False, True))
    assert saving < plain
    for gigabytes, recompute, warned in (
        (plain * 1.01, False, False),
        (saving * 1.01, True, False),
        (0.9 * saving, True, True),
    ):
        free(gigabytes)
        assert memory.wants_checkpointing(tiny, CONFIG, CROPS) == recompute
        assert bool(memory.memory_warning(tiny, CONFIG, CROPS, recompute)) == warned
    assert memory.wants_checkpointing(tiny, replace(CONFIG, gradient_checkpointing="on"), CROPS)
    free(0)
    assert not memory.wants_checkpointing(tiny, replace(CONFIG, gradient_checkpointing="off"), CROPS)


def test_the_estimate_grows_with_the_pixels_the_batch_and_a_plain_lora(tiny: FluxBackbone):
    def total(config: PersonalizeConfig = CONFIG, crops: CropConfig = CROPS) -> int:
        return memory.estimate(tiny, config, crops, checkpointing=False).activations

    assert total(crops=replace(CROPS, resolution=512)) < total() < total(replace(CONFIG, batch=2))
    assert total(replace(CONFIG, method="lora")) > total()


def test_the_blocks_are_nearly_all_of_the_parameters(tiny: FluxBackbone):
    with tiny.denoiser() as denoiser:
        counted = sum(p.numel() for name, p in denoiser.network.named_parameters() if "transformer_blocks" in name)
    estimated = memory.estimate(tiny, CONFIG, CROPS, checkpointing=False).weights / 4
    assert estimated == pytest.approx(counted, rel=0.01)

"""Whether a job fits: decided by arithmetic before anything is loaded."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from metalora.backbones.block_swapping import swap_blocks
from metalora.backbones.pipeline import PipelineBackbone, Speed, run_as
from metalora.backbones.tiny_flux import TinyFlux
from metalora.config import CropConfig, PersonalizeConfig
from metalora.jobs import memory
from metalora.jobs.memory import weight_bytes

CONFIG, CROPS = PersonalizeConfig(), CropConfig()


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    def set_free(gigabytes: float) -> None:
        monkeypatch.setattr(memory, "free_memory", lambda device: int(gigabytes * 1e9))

    return set_free


def test_activations_are_recomputed_only_where_they_would_not_fit_and_grow_with_pixels_batch_and_a_plain_lora(
    tiny: PipelineBackbone, free
):
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

    def total(config: PersonalizeConfig = CONFIG, crops: CropConfig = CROPS) -> int:
        return memory.estimate(tiny, config, crops, checkpointing=False).activations

    assert total(crops=replace(CROPS, resolution=512)) < total() < total(replace(CONFIG, batch=2))
    assert total(replace(CONFIG, method="lora")) > total()


@pytest.mark.parametrize(
    "speed",
    [
        Speed(),
        Speed(eight_bit=True),
        Speed(four_bit=True),
        Speed(swapped_blocks=3),
        Speed(eight_bit=True, swapped_blocks=4),
    ],
    ids=str,
)
def test_the_blocks_are_nearly_all_of_the_parameters_also_in_fewer_bits_and_when_they_are_swapped(speed: Speed):
    """Counted on the device: the memory that holds resident blocks, and the buffers."""
    if speed.four_bit:
        pytest.importorskip("bitsandbytes")
    backbone = PipelineBackbone(TinyFlux(), torch.device("cpu"), torch.float32, speed)
    network = backbone.parts.transformer("cpu", torch.float32)
    run_as(network, replace(speed, swapped_blocks=0), backbone.device)
    at_home, buffers = set(), 0
    if speed.swapped_blocks:
        swapping = swap_blocks(network, speed.swapped_blocks, backbone.device)
        at_home = {block.home.untyped_storage().data_ptr() for block in swapping.blocks}
        buffers = sum(buffer.nbytes for buffer in swapping.buffers)
    blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
    tensors = [tensor for block in blocks for tensor in (*block.parameters(), *block.buffers())]
    resident = sum(tensor.nbytes for tensor in tensors if tensor.untyped_storage().data_ptr() not in at_home)
    estimated = memory.estimate(backbone, CONFIG, CROPS, checkpointing=False).weights
    # Biases, norms and int8's scales are not estimated: 1% in float32 at this width, and so more of smaller weights.
    tolerance = 0.015 * 4 / weight_bytes(speed, 4)
    assert estimated == pytest.approx(resident + buffers, rel=tolerance)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_smaller_card_is_imitated_whether_or_not_the_gpu_has_a_number(name: str, monkeypatch: pytest.MonkeyPatch):
    """torch's own check of its arguments runs; what would need a GPU does not."""
    said: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=48e9))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda *given: said.append(given), raising=False)
    memory.cap_memory(torch.device(name), 12e9)
    memory.cap_memory(torch.device(name), 96e9)
    assert said == [(0.25, 0), (1.0, 0)]

"""Whether a job fits, and which way to run a base is chosen for a card: by arithmetic, before anything is loaded."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from metalora.backbones.block_swapping import swap_blocks
from metalora.backbones.families.flux import FluxShape
from metalora.backbones.pipeline import PipelineBackbone, Speed, open_backbone, run_as
from metalora.backbones.speed import Checkpointing
from metalora.backbones.tiny_flux import TinyFlux
from metalora.cli import main
from metalora.config import BaseConfig, CropConfig, GenerateConfig, PersonalizeConfig, UserError
from metalora.jobs import fitting, memory
from metalora.jobs.fitting import PATIENCE, Way, fastest, step_seconds, ways
from metalora.jobs.memory import RESERVE, weight_bytes

SHAPE = FluxShape(3072, 19, 38, 64, 4096, 768, guidance=True)
CONFIG, CROPS = PersonalizeConfig(), CropConfig()
ALL = tuple(Checkpointing)


@pytest.fixture(scope="module")
def flux() -> PipelineBackbone:
    """FLUX.1-dev's sizes, without its files."""
    return open_backbone(BaseConfig(backbone="flux-dev", device="cpu", precision="bf16"))


@pytest.fixture(autouse=True)
def large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice must not depend on what is free where the tests run."""
    for module in (memory, fitting):
        monkeypatch.setattr(module, "free_memory", lambda device: int(100e9))


def seconds(way: Way, pixels: int = 1024) -> float:
    return step_seconds(SHAPE, way, (pixels // 16) ** 2 + 512, 1, 2)


def test_the_time_of_a_step_grows_with_what_is_done_for_memory_and_where_it_suffices_nothing_is():
    assert fastest(ways(SHAPE, ALL, True, True), lambda way: 0.0, seconds, 1.0) == Way()
    none, selective, full = (seconds(Way(how)) for how in (ALL[0], ALL[2], ALL[1]))
    assert none < selective < full
    assert full / none == pytest.approx(245 / 171, rel=0.01)  # TFLOP: spec and `tests/test_bench.py`
    assert seconds(Way(speed=Speed(four_bit=True))) > none
    assert seconds(Way(speed=Speed(swapped_blocks=5))) == none  # hidden behind the products
    the_links = 2 * 1254 * 3072**2 * 2 / 12e9
    assert seconds(Way(speed=Speed(swapped_blocks=57))) == pytest.approx(the_links)


@pytest.mark.parametrize("gigabytes", [12, 16, 24, 32, 48, 80])
@pytest.mark.parametrize("pixels", [512, 1024])
def test_what_is_chosen_fits_and_no_way_that_fits_is_much_faster(flux: PipelineBackbone, gigabytes: int, pixels: int):
    asked = fitting.training(flux, CONFIG, replace(CROPS, resolution=pixels), selective=True)
    room = gigabytes * 1e9 - RESERVE
    choice = fitting.choose(flux, asked, room, ways(flux.architecture, asked.checkpointing, True, True))
    assert choice is not None
    assert choice.need.total <= room
    others = [w for w in ways(flux.architecture, ALL, True, True) if asked.need(w).total <= room]
    assert asked.seconds(choice.way) <= PATIENCE * min(map(asked.seconds, others))
    for less in others:  # nothing that changes the base less would have been fast enough
        exact, chosen = ((way.speed.eight_bit, way.speed.four_bit) for way in (less, choice.way))
        if exact < chosen and not less.speed.four_bit:
            assert asked.seconds(less) > PATIENCE * min(map(asked.seconds, others))


def test_the_chosen_way_needs_what_the_estimate_says_and_the_job_then_takes_its_checkpoints(flux: PipelineBackbone):
    backbone = PipelineBackbone(flux.parts, torch.device("cpu"), torch.bfloat16)
    fitting.imitate(backbone, 16)
    said = fitting.fit_personalization(backbone, CONFIG, CROPS)
    assert backbone.speed.swapped_blocks or backbone.speed.weights
    how = memory.wants_checkpointing(backbone, CONFIG, CROPS)
    need = memory.estimate(backbone, CONFIG, CROPS, checkpointing=how)
    assert f": {need.total / 1e9:.1f} GB, by arithmetic" in said
    assert memory.fits(need, backbone)
    assert "would need 51.2 GB" in said
    images = fitting.fit_images(backbone, GenerateConfig())
    assert "checkpoints" not in images


def test_options_that_are_fixed_are_kept_and_what_cannot_fit_is_refused(flux: PipelineBackbone):
    backbone = PipelineBackbone(flux.parts, torch.device("cpu"), torch.bfloat16, Speed(attention="math"))
    fitting.imitate(backbone, 24)
    fitting.fit_personalization(backbone, replace(CONFIG, gradient_checkpointing="off"), replace(CROPS, resolution=512))
    assert backbone.speed.attention == "math"
    assert memory.wants_checkpointing(backbone, CONFIG, replace(CROPS, resolution=512)) == Checkpointing.NONE
    with pytest.raises(UserError, match=r"Nothing fits into 24.0 GB: .* Lower --resolution or --batch"):
        fitting.fit_personalization(backbone, replace(CONFIG, gradient_checkpointing="off", batch=64), CROPS)
    for wrong in (0.0, -3.0, float("nan")):
        with pytest.raises(UserError, match="no size of a card"):
            fitting.imitate(backbone, wrong)


def test_a_base_that_fits_any_card_has_no_table(tiny: PipelineBackbone, flux: PipelineBackbone):
    assert fitting.table(tiny, CONFIG, CROPS) == []
    lines = fitting.table(flux, CONFIG, CROPS)
    assert len(lines) == 1 + 12
    assert lines[-1].split() == ["80", "GB", "1024", "px", "bf16:", "51.2", "GB"]


def test_the_command_line_fits_swaps_and_refuses(here: Path, tiny: PipelineBackbone, capsys: pytest.CaptureFixture):
    """The tiny FLUX on a card that is too small for its step as it is."""
    config, crops = replace(CONFIG, steps=1), replace(CROPS, resolution=64)
    full = memory.estimate(tiny, config, crops, checkpointing=Checkpointing.FULL)
    small_card = ["--backbone", "tiny", "--fit", str((RESERVE + full.total - 1e5) / 1e9)]
    photo = ["personalize", "ada.jpg", "--out", "a.safetensors", "--meta-down", "random", "--steps", "1"]
    assert main([*photo, "--resolution", "64", *small_card]) == 0
    said = capsys.readouterr().err
    assert "--fit: " in said
    assert "swapped" in said or "int8" in said
    images = ["generate", "--prompt", "x", "--sampling-steps", "1", "--width", "64", "--height", "64"]
    assert main([*images, *small_card]) == 0
    assert "--fit: " in capsys.readouterr().err
    images += ["--backbone", "tiny"]
    assert main([*images, "--swap-blocks", "5"]) == 1
    assert "from 3 to 4" in capsys.readouterr().err
    assert main([*images, "--swap-blocks", "4", "--out", "swapped"]) == 0
    assert "4 blocks swapped" in capsys.readouterr().err
    assert main([*images, "--fit", "--eight-bit"]) == 1
    assert "leave them out" in capsys.readouterr().err
    assert main([*images, "--fit", "1.4"]) == 1
    assert "Nothing fits" in capsys.readouterr().err


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

"""Which way to run a base is chosen for a card: by arithmetic, before anything is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metalora.backbones.families.flux import FluxShape
from metalora.backbones.pipeline import PipelineBackbone, Speed, open_backbone
from metalora.backbones.speed import Checkpointing
from metalora.cli import main
from metalora.config import BaseConfig, CropConfig, GenerateConfig, PersonalizeConfig, UserError
from metalora.jobs import fitting, memory
from metalora.jobs.fitting import PATIENCE, Way, fastest, step_seconds, ways
from metalora.jobs.memory import RESERVE

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

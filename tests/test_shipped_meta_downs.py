"""The Meta-Downs that come with the package are taken where none is named, for their base and class alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import INPUTS, planned
from runs import CONFIG, meta_down_file

from metalora.backbones.pipeline import PipelineBackbone, open_backbone
from metalora.backbones.protocol import Backbone
from metalora.config import BaseConfig, UserError
from metalora.jobs import training_files
from metalora.store import files


@pytest.fixture
def shipped(tiny: PipelineBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that ships one for women of the tiny FLUX."""
    monkeypatch.setattr(training_files, "SHIPPED", tmp_path / "shipped")
    meta_down_file(tiny, tmp_path / "shipped" / "any-name.safetensors")
    return tmp_path / "shipped"


def test_a_run_without_a_name_stands_on_the_shipped_one_of_its_class_and_another_class_is_told_which_there_are(
    personalize, tmp_path: Path, shipped: Path, tiny: PipelineBackbone
):
    config = replace(CONFIG, steps=1, class_name="woman")
    for out, source in (("default", None), ("named", str(next(shipped.iterdir())))):
        personalize(tmp_path / f"{out}.safetensors", config, source)
    default, named = ((tmp_path / f"{out}.adapter.safetensors").read_bytes() for out in ("default", "named"))
    assert default == named
    config = replace(CONFIG, steps=1, class_name="person")
    with pytest.raises(UserError, match=f"For {tiny.name} there are shipped ones: say --class woman"):
        personalize(tmp_path / "ada.safetensors", config, None)


def test_a_benchmark_takes_them_too_and_wants_the_others_named(tiny: PipelineBackbone, tmp_path: Path, shipped: Path):
    with pytest.raises(UserError, match="needs a Meta-Down for the class man"):
        planned(tmp_path / "run", tiny, replace(INPUTS, meta_downs={}))
    plan = planned(tmp_path / "run", tiny, replace(INPUTS, meta_downs={"man": "random"}))
    tensors, _ = files.read(next(shipped.iterdir()), ("meta-down",))
    assert plan.meta_downs["woman"]["sha256"] == files.digest_of_tensors(tensors)
    assert plan.meta_downs["man"]["sha256"] != plan.meta_downs["woman"]["sha256"]


@pytest.fixture(scope="module")
def miniature() -> Backbone:
    return open_backbone(BaseConfig(backbone="miniature", device="cpu"))


def test_the_miniature_comes_with_one_for_every_class_made_for_the_very_weights_that_ship(miniature: Backbone):
    found = training_files.shipped_meta_downs(miniature.name)
    assert found.keys() == {training_files.ALL}
    assert training_files.shipped_meta_down(miniature.name, "woman") == found[training_files.ALL]
    tensors, metadata = files.read(found[training_files.ALL], ("meta-down",), base=miniature.name)
    weights, _precision = metadata["base_fingerprint"].rsplit("-", 1)
    assert miniature.fingerprint("transformer").startswith(weights)
    assert metadata["objective"] == "across-photos"
    sites = miniature.sites("all")
    assert {f"{site.name}.{role}" for site in sites for role in ("down", "mid", "up")} < tensors.keys()

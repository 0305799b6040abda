"""Meta-Downs from other places: distilled from LoRAs with a known subspace, or shipped for a base and class alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import INPUTS, planned
from runs import CONFIG, meta_down_file
from safetensors.torch import save_file
from torch import Tensor

from metalora.backbones.architecture import KEY_FORMATS, format_lora
from metalora.backbones.pipeline import PipelineBackbone, open_backbone
from metalora.backbones.protocol import Backbone
from metalora.cli import main
from metalora.config import BaseConfig, PersonalizeConfig, UserError
from metalora.jobs import run, training_files
from metalora.jobs.info import inspect_meta_down
from metalora.jobs.lora import meta_down_from_loras
from metalora.jobs.training_files import read_meta_down, starting_adapters
from metalora.method.shared_directions import shared_directions
from metalora.store import files

TINY = ("--backbone", "tiny")


def test_an_older_file_with_more_tensors_and_settings_than_are_known_now_is_read_as_one_without(
    tiny: PipelineBackbone, tmp_path: Path
):
    plain = meta_down_file(tiny, tmp_path / "plain.safetensors")
    tensors, metadata = files.read(plain, ("meta-down",))
    tensors |= {f"{site.name}.mean_heads": torch.randn(site.out_features, 16) for site in tiny.sites("all")}
    metadata |= {"mean_heads_of": "32", "options": json.dumps({"start": "gradients", "even_rows": True})}
    older = tmp_path / "older.safetensors"
    files.write(older, tensors, "meta-down", metadata)
    starts = [starting_adapters(tiny, PersonalizeConfig(), str(path))[0].tensors() for path in (plain, older)]
    assert starts[0].keys() == starts[1].keys()
    assert all(torch.equal(tensor, starts[1][name]) for name, tensor in starts[0].items())
    assert inspect_meta_down(older) == inspect_meta_down(plain)
    assert main(["meta-down", "inspect", str(older)]) == 0


def loras_of_a_subspace(
    basis: Tensor, count: int, rank: int, noise: float, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """LoRAs whose downs lie in the rows of `basis`, but for noise, and whose strengths differ widely."""
    g = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(rank, len(basis), generator=g) @ basis + noise * torch.randn(rank, basis.shape[1], generator=g),
            torch.randn(40, rank, generator=g) * 10 ** (2 * torch.rand(1, generator=g) - 1),
        )
        for _ in range(count)
    ]


def largest_angle(one: Tensor, other: Tensor) -> float:
    """The largest principal angle between two row spaces of one size, in degrees."""
    (a, _), (b, _) = torch.linalg.qr(one.T.double()), torch.linalg.qr(other.T.double())
    return torch.rad2deg(torch.arccos(torch.linalg.svdvals(a.T @ b).clamp(max=1).min())).item()


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize(("noise", "degrees"), [(0.0, 0.01), (0.02, 6.0)])
def test_a_shared_subspace_is_recovered(rank: int, noise: float, degrees: float):
    basis = torch.linalg.qr(torch.randn(64, 5, generator=torch.Generator().manual_seed(1))).Q.T
    found = shared_directions(loras_of_a_subspace(basis, 32, rank, noise), 5, torch.Generator())
    assert largest_angle(found, basis) < degrees
    assert largest_angle(torch.randn(5, 64), basis) > 45


def test_directions_found_come_first_and_what_counts_is_the_update_not_its_split_into_two():
    basis = torch.linalg.qr(torch.randn(64, 3, generator=torch.Generator().manual_seed(1))).Q.T
    found = shared_directions(loras_of_a_subspace(basis, 10, 1, 0.0), 8, torch.Generator().manual_seed(0))
    assert found.shape == (8, 64)
    assert largest_angle(found[:3], basis) < 0.01
    torch.testing.assert_close(found @ found.T * 3, torch.eye(8))
    basis = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    loras = loras_of_a_subspace(basis, 12, 2, 0.3)
    mix = torch.tensor([[2.0, 1.0], [0.0, 0.5]])
    same = [(mix @ down, up @ torch.linalg.inv(mix)) for down, up in loras]
    torch.testing.assert_close(
        shared_directions(loras, 4, torch.Generator()), shared_directions(same, 4, torch.Generator()), atol=1e-4, rtol=0
    )


def test_from_loras_of_mixed_key_formats_and_ranks(tiny: PipelineBackbone, tmp_path: Path):
    (tmp_path / "loras").mkdir()
    basis = {site.name: torch.randn(3, site.in_features) for site in tiny.sites("all")}
    for number in range(9):
        rank = 1 + number % 3
        lora = {
            site.name: (torch.randn(rank, 3) @ basis[site.name], torch.randn(site.out_features, rank))
            for site in tiny.sites("all")
        }
        tensors = format_lora(lora, KEY_FORMATS[number % 3], tiny.architecture)
        save_file(tensors, tmp_path / "loras" / f"{number}.safetensors")
    out = tmp_path / "woman.safetensors"
    run(meta_down_from_loras(tmp_path / "loras", out, tiny, "woman", meta_rank=3))
    downs, _ = read_meta_down(out, tiny.sites("all"), tiny.name, rank=1)
    assert max(largest_angle(downs[name], basis[name]) for name in basis) < 0.2


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

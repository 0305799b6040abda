"""Meta-Downs from other places: taken out of files in every key format, distilled from LoRAs with a known subspace."""

import json
from pathlib import Path

import pytest
import torch
from runs import meta_down_file
from safetensors.torch import save_file
from torch import Tensor

from metalora.backbones.lora_downs import read_downs
from metalora.backbones.lora_formats import KEY_FORMATS, format_lora
from metalora.backbones.pipeline import PipelineBackbone
from metalora.cli import main
from metalora.config import PersonalizeConfig, UserError
from metalora.jobs import run
from metalora.jobs.meta_down_sources import import_meta_down, inspect_meta_down, meta_down_from_loras
from metalora.jobs.meta_downs import read_meta_down, starting_adapters
from metalora.method.shared_directions import shared_directions
from metalora.store import files

TINY = ("--backbone", "tiny")


def two_matrices(backbone: PipelineBackbone, rank: int = 4, preset: str = "all") -> dict[str, tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(3)
    return {
        site.name: (torch.randn(rank, site.in_features, generator=g), torch.randn(site.out_features, rank, generator=g))
        for site in backbone.sites(preset)
    }


@pytest.mark.parametrize("key_format", [*KEY_FORMATS, "peft"])
def test_the_downs_of_two_matrix_files_are_taken_in_every_key_format(tiny: PipelineBackbone, key_format: str):
    lora = two_matrices(tiny)
    tensors = format_lora(lora, "diffusers" if key_format == "peft" else key_format, tiny.architecture)
    if key_format == "peft":
        tensors = {
            key.replace("transformer.", "base_model.model.", 1).replace(".weight", ".default.weight"): tensor
            for key, tensor in tensors.items()
        }
    found = read_downs({**tensors, "some.thing.else": torch.zeros(3)}, tiny.architecture)
    assert found.by_site.keys() == lora.keys()
    assert all(torch.equal(found.by_site[name], lora[name][0]) for name in lora)
    assert "some.thing.else" in found.left
    assert len(found.taken) + len(found.left) == len(tensors) + 1


@pytest.mark.parametrize(
    "roles", [("down", "mid", "up"), ("meta_down", "lora_mid", "lora_up"), ("first", "second", "3")]
)
@pytest.mark.parametrize("prefix", ["", "transformer.", "base_model.model."])
def test_three_matrix_files_give_the_shared_one(tiny: PipelineBackbone, roles: tuple[str, ...], prefix: str):
    tensors, expected = {}, {}
    for site in tiny.sites("attention"):
        expected[site.name] = torch.randn(8, site.in_features)
        matrices = expected[site.name], torch.randn(1, 8), torch.randn(site.out_features, 1)
        tensors |= {f"{prefix}{site.name}.{role}.weight": m for role, m in zip(roles, matrices, strict=True)}
    found = read_downs(tensors, tiny.architecture)
    assert all(torch.equal(found.by_site[name], down) for name, down in expected.items())
    assert len(found.by_site) == len(expected)


def test_a_fused_layer_gives_its_down_to_each_of_its_slices(tiny: PipelineBackbone):
    down = torch.randn(8, 128)
    found = read_downs({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": down}, tiny.architecture)
    names = [f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"]
    assert list(found.by_site) == names
    assert all(torch.equal(found.by_site[name], down) for name in names)


def test_import_says_what_it_took_and_personalize_can_use_it(tiny: PipelineBackbone, tmp_path: Path):
    lora = two_matrices(tiny, rank=8, preset="attention")
    save_file(format_lora(lora, "kohya", tiny.architecture), tmp_path / "other.safetensors")
    result = run(import_meta_down(tmp_path / "other.safetensors", tmp_path / "out.safetensors", tiny, "woman"))
    assert result.sites == "attention"
    assert result.ranks == [8]
    downs, metadata = read_meta_down(tmp_path / "out.safetensors", tiny.sites("attention"), tiny.name, rank=1)
    assert all(torch.equal(downs[name], lora[name][0]) for name in lora)
    assert metadata["meta_domain"] == "woman"
    assert "effective rank" in inspect_meta_down(tmp_path / "out.safetensors")


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


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 3072)}, r"expected \[rank, 128\]"),
        ({"unet.mid_block.lora_down.weight": torch.zeros(4, 128)}, "None of the 1 keys is a down layer"),
        ({"transformer_blocks.0.attn.to_q.a.weight": torch.zeros(4, 128),
          "transformer_blocks.0.attn.to_q.b.weight": torch.zeros(4, 128)}, "could both be"),
        ({"transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 128)}, "has to cover one of: all, attention"),
    ],
    ids=["wrong width", "another model", "ambiguous", "too few sites"],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_was_expected(
    tiny: PipelineBackbone, tmp_path: Path, tensors: dict[str, Tensor], said: str
):
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=said):
        run(import_meta_down(tmp_path / "other.safetensors", tmp_path / "out.safetensors", tiny, "woman"))
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_of_ours_for_another_base_is_refused(tiny: PipelineBackbone, tmp_path: Path):
    files.write(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, "meta-down", {"base": "flux.1-dev"})
    with pytest.raises(UserError, match=r"made for 'flux\.1-dev'"):
        run(import_meta_down(tmp_path / "other.safetensors", tmp_path / "out.safetensors", tiny, "woman"))


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


def test_directions_found_come_first_and_random_ones_fill_up():
    basis = torch.linalg.qr(torch.randn(64, 3, generator=torch.Generator().manual_seed(1))).Q.T
    found = shared_directions(loras_of_a_subspace(basis, 10, 1, 0.0), 8, torch.Generator().manual_seed(0))
    assert found.shape == (8, 64)
    assert largest_angle(found[:3], basis) < 0.01
    torch.testing.assert_close(found @ found.T * 3, torch.eye(8))


def test_what_counts_is_the_update_and_not_how_it_is_split_into_two():
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


def test_the_commands(tiny: PipelineBackbone, tmp_path: Path, capsys: pytest.CaptureFixture):
    made = meta_down_file(tiny, tmp_path / "made.safetensors")
    assert main(["meta-down", "inspect", str(made)]) == 0
    assert (
        main(["meta-down", "import", str(made), *TINY, "--out", str(tmp_path / "again.safetensors"), "--class", "man"])
        == 0
    )
    said = capsys.readouterr().out
    assert "took 40 down matrices, rank 16, sites: all" in said
    assert "next:  metalora personalize photo.jpg --meta-down" in said
    assert main(["meta-down", "from-loras", str(tmp_path), *TINY, "--out", str(tmp_path / "x.safetensors")]) == 1
    assert "Traceback" not in capsys.readouterr().err

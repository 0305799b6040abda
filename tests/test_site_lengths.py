"""Row lengths by how personal a layer's gradient is, and the same lengths at other layers."""

from pathlib import Path

import pytest
from runs import meta_down_file

from bench.site_lengths import main
from metalora.backbones.flux import FluxBackbone
from metalora.store import files


@pytest.fixture
def given(tiny: FluxBackbone, tmp_path: Path) -> tuple[Path, Path]:
    """A Meta-Down, and a table in which later sites are the more personal, and the first not at all."""
    meta_down = meta_down_file(tiny, tmp_path / "woman.safetensors")
    rows = [f"{meta_down},{site.name},0.5,{index / 100},0.1,3" for index, site in enumerate(tiny.sites("all"))]
    table = tmp_path / "sites.csv"
    table.write_text("\n".join(["meta_down,site,held,own,common,input_energy", *rows]) + "\n")
    return meta_down, table


def factors_of(changed: Path, meta_down: Path, names: list[str]) -> list[float]:
    before, after = (files.read(path, ("meta-down",))[0] for path in (meta_down, changed))
    return [(after[f"{name}.down"] / before[f"{name}.down"]).mean().item() for name in names]


def test_lengths_follow_shares_and_keep_their_mean_square(given: tuple[Path, Path], tiny: FluxBackbone, tmp_path: Path):
    meta_down, table = given
    names = [site.name for site in tiny.sites("all")]
    for out, more in (("theirs", []), ("shuffled", ["--shuffled", "0"])):
        assert main([str(meta_down), str(table), "--out", str(tmp_path / f"{out}.safetensors"), *more]) == 0
    theirs, shuffled = (factors_of(tmp_path / f"{out}.safetensors", meta_down, names) for out in ("theirs", "shuffled"))
    assert theirs[20] / theirs[10] == pytest.approx(2, rel=1e-4)
    assert theirs[0] == pytest.approx(theirs[1])  # 0% counts as 1%: rows of no length would be lost
    assert sum(factor**2 for factor in theirs) / len(theirs) == pytest.approx(1, rel=1e-4)
    assert shuffled != theirs
    assert sorted(shuffled) == pytest.approx(sorted(theirs), rel=1e-4)


def test_a_table_of_another_meta_down_is_refused(given: tuple[Path, Path], tmp_path: Path, capsys):
    meta_down, table = given
    other = tmp_path / "man.safetensors"
    other.write_bytes(meta_down.read_bytes())
    assert main([str(other), str(table), "--out", str(tmp_path / "out.safetensors")]) == 1
    assert f"has no row for {other}" in capsys.readouterr().err
    assert main([str(other), str(other), "--out", str(tmp_path / "out.safetensors")]) == 1
    assert "is no table of `metalora meta-down compare --by-site`" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()

"""A wheel holds everything the package needs: it works from a folder of its own, away from the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def tracked(folder: str) -> list[str]:
    found = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files: what lies around in a work tree must not get in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in [*tracked("metalora"), "pyproject.toml", "README.md", "LICENSE"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(installed: Path, code: str) -> str:
    """What it prints, run where only the installed copy can be found."""
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=installed, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_tracked_file_of_the_package_is_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert [name for name in tracked("metalora") if name not in held] == []


def test_it_holds_the_miniature_whole_and_runs_away_from_the_source_tree(installed):
    where = python(installed, "import metalora; print(metalora.__file__)")
    assert Path(where).is_relative_to(installed)
    said = python(installed, "from metalora.cli import main; main(['doctor', '--backbone', 'tiny'])")
    assert str(ROOT) not in said
    code = "from metalora.backbones.pipeline import find_parts; print(find_parts('miniature', {}).missing())"
    assert python(installed, code) == "[]"

"""What is installed: the zip of ComfyUI's registry, small, whole, without what scanners take for an attack; a wheel."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from comfyui import ROOT, needs_comfyui
from comfyui_server import serving

pytestmark = pytest.mark.slow

MEGABYTES = 45
# Modules and built-ins with which a node can run programs, unpack code or talk to the network.
MODULES = {"subprocess", "pickle", "marshal", "ctypes", "socket", "requests", "urllib", "http", "base64", "pty"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub.load"}
USED = {
    ("metalora/store/report/pictures.py", "base64"),  # pictures inside an HTML page
    ("metalora/store/report/charts.py", "base64"),  # and charts
    ("metalora/measure/facenet.py", "pickle"),  # the exception of a damaged weights file, nothing else of it
    ("metalora/measure/clip.py", "pickle"),
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip that `make zip` makes, of the last commit."""
    folder = tmp_path_factory.mktemp("zip")
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), clone], check=True)
    subprocess.run(["make", "--silent", "zip"], cwd=clone, check=True)
    assert (clone / "node.zip").stat().st_size <= MEGABYTES * 1e6
    with zipfile.ZipFile(clone / "node.zip") as packed:
        packed.extractall(folder / "metalora")
    shutil.rmtree(clone)
    return folder / "metalora"


def test_it_has_all_that_runs_nothing_for_makers_and_nothing_that_runs_programs_or_talks_to_the_network(unpacked: Path):
    top = {path.name for path in unpacked.iterdir()}
    assert {"__init__.py", "nodes", "metalora", "web", "workflows", "subgraphs", "locales"} < top
    assert {"pyproject.toml", "requirements.txt", "README.md", "LICENSE"} < top
    assert not top & {"tests", "tools", "bench", "docs", "Makefile", ".git", ".ci"}
    left_out = [line[1:] for line in (ROOT / ".comfyignore").read_text().splitlines() if line.startswith("/")]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in tracked.splitlines() if name.endswith(".py") and name.split("/")[0] not in left_out]
    assert len(names) > 100
    assert [name for name in names if not (unpacked / name).exists()] == []
    found = set()
    for path in unpacked.rglob("*.py"):
        name = path.relative_to(unpacked).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {(name, alias.name.split(".")[0]) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add((name, str(node.module).split(".")[0]))
            elif isinstance(node, ast.Call):
                found.add((name, ast.unparse(node.func)))
    assert {(name, what) for name, what in found if what in MODULES} == USED
    assert {(name, what) for name, what in found if what in CALLS} == set()


@needs_comfyui
def test_a_comfyui_loads_every_node_from_it_quickly_and_without_a_warning(unpacked: Path, tmp_path: Path):
    with serving(tmp_path / "base", unpacked) as server:
        kinds = {kind for kind in server.get("/object_info") if kind.startswith("MetaLoRA_")}
        assert kinds == {page.stem for page in (ROOT / "web" / "docs").glob("*.md")}
        (seconds,) = re.findall(r"([\d.]+) seconds: \S*custom_nodes/metalora", server.log)
        assert "IMPORT FAILED" not in server.log
        assert not [
            line for line in server.log.splitlines() if "warning" in line.lower() and "metalora" in line.lower()
        ]
    print(f"import: {seconds} s")
    assert float(seconds) < 6, "1 s where nothing else runs"


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

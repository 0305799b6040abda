"""The architecture as tests: who may import whom; outside ComfyUI the pack is harmless; links between pages lead on."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "metalora").rglob("*.py"))
COMFY = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "execution", "server"}
ROOMS = {"method", "measure", "backbones", "store"}
LATE = {"diffusers", "transformers", "onnx", "onnxruntime", "cv2", "insightface", "matplotlib", "peft", "bitsandbytes"}
LATE |= {"prodigyopt"}
STANDARD = set(sys.stdlib_module_names)


def imports(path: Path, only_top_level: bool = False) -> tuple[set[str], set[str]]:
    """(absolute roots, names inside metalora with dots) that a file imports."""
    tree = ast.parse(path.read_text())
    absolute, inside = set(), set()
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in tree.body if only_top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            absolute |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            absolute.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = (*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ()))
            inside |= {".".join(base)} if node.module else set()
            inside |= {".".join((*base, alias.name)) for alias in node.names}
    return absolute, inside


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_what_stands_below_it_and_heavy_packages_late(path: Path):
    (absolute, inside), (at_once, _) = imports(path), imports(path, only_top_level=True)
    assert not absolute & (COMFY | {"metalora"}), "nothing of ComfyUI, and itself by relative names"
    assert not at_once & LATE
    for room in ROOMS & set(path.relative_to(ROOT).parts):
        allowed = ("metalora.config", "metalora.method", f"metalora.{room}")
        assert all(name.startswith(allowed) for name in inside), inside
    if "method" in path.parts:
        assert absolute <= STANDARD | {"torch"}
    if "jobs" in path.parts:
        assert not {name for name in inside if name.startswith(("metalora.cli", "metalora.commands"))}


@pytest.mark.parametrize("path", sorted((ROOT / "nodes").rglob("*.py")), ids=named)
def test_only_the_bridge_touches_the_insides_of_comfyui(path: Path):
    absolute, _ = imports(path)
    assert path.parent == ROOT / "nodes" / "bridge" or not absolute & (COMFY - {"comfy_api"})


def test_no_file_has_more_than_300_lines():
    files = [path for folder in ("metalora", "nodes", "tools", "bench") for path in (ROOT / folder).rglob("*.py")]
    assert not [named(path) for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 300]


def test_no_module_imports_itself_over_others_not_even_late():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    packages = {name.removesuffix(".__init__"): name for name in modules if name.endswith(".__init__")}
    reaches = {
        name: {packages.get(one, one) for one in imports(path)[1]} & modules.keys() for name, path in modules.items()
    }
    while free := {name for name, wanted in reaches.items() if not wanted}:
        reaches = {name: wanted - free for name, wanted in reaches.items() if name not in free}
    assert not reaches, f"a circle of imports, or what leads into one: {sorted(reaches)}"


def test_the_pack_is_harmless_outside_comfyui():
    spec = importlib.util.spec_from_file_location(
        "some_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not {"NODE_CLASS_MAPPINGS"} & set(vars(module)), "it would make ComfyUI ignore comfy_entrypoint"


PAGES = sorted(
    ROOT / name for name in subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).split()
)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)|src=\"(?!https?:)([^\"]+)\"")


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading's text."""
    return "#" + re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).strip().replace(
        " ", "-"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path):
    for target, heading, source in LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)):
        found = page.parent / (target or source or page.name)
        assert found.exists(), f"{target or source} is not there"
        if heading and found.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.M)
            assert heading in map(anchor, headings), f"{target}{heading}: no such heading"

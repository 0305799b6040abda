"""What a prompt may read and write on the server: ComfyUI's own folders, and what the server's owner allows."""

import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from comfy_standin import PACK, ROOT, pack_on_the_standin


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real bridge to folders, over a ComfyUI whose folders are below `tmp_path/comfyui`."""
    base = tmp_path / "comfyui"
    for name in ("input", "output", "models"):
        (base / name / "people").mkdir(parents=True)
    paths = ModuleType("folder_paths")
    paths.models_dir = str(base / "models")
    paths.get_input_directory = lambda: str(base / "input")
    paths.get_output_directory = lambda: str(base / "output")
    paths.get_full_path = lambda kind, name: None
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    monkeypatch.delenv("METALORA_FOLDERS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pack_on_the_standin():
        name = f"{PACK}.nodes.bridge.folders"
        spec = importlib.util.spec_from_file_location(name, ROOT / "nodes" / "bridge" / "folders.py")
        folders = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(folders)
        used = {short: importlib.import_module(f"{PACK}.nodes.{short}") for short in ("loaders", "benchmark")}
        for module in used.values():
            module.folders = folders
        error = importlib.import_module(f"{PACK}.metalora.config").UserError
        yield SimpleNamespace(folders=folders, base=base, error=error, **used)


def test_a_folder_is_one_of_comfyuis_own_or_one_that_the_owner_allows(nodes, tmp_path: Path, monkeypatch):
    assert nodes.folders.allowed_path("people") == nodes.base / "input" / "people"
    for name in ("output", "models"):
        assert nodes.folders.allowed_path(str(nodes.base / name / "people")) == nodes.base / name / "people"
    outside = [str(tmp_path), "../../x", "/", "~", "/etc/passwd", f"{nodes.base}/input/../../x", f"{nodes.base}/inputs"]
    for given in (*outside, "people\0"):
        with pytest.raises(nodes.error, match="is not in ComfyUI's input, output or models folder"):
            nodes.folders.allowed_path(given)
    monkeypatch.setenv("METALORA_FOLDERS", os.pathsep.join(["/data/photos", str(tmp_path / "mine")]))
    assert nodes.folders.allowed_path("/data/photos/ada") == Path("/data/photos/ada")
    with pytest.raises(nodes.error, match="METALORA_FOLDERS"):
        nodes.folders.allowed_path("/data/others")


def test_nothing_outside_is_read_for_whoever_asks_and_a_shipped_file_is_one_that_the_widget_lists(nodes):
    for ask in (nodes.loaders.photos_in, nodes.benchmark.manifest_of, nodes.loaders.LoadPhotos.fingerprint_inputs):
        with pytest.raises(nodes.error, match="is not in ComfyUI's"):
            ask("/etc")
    (first, *_) = nodes.loaders.shipped()
    assert nodes.loaders.path_of(first).is_file()
    for name in ("shipped: ../../x", "shipped: /etc/passwd", "shipped: ", "shipped: ..\\x"):
        with pytest.raises(nodes.error):
            nodes.loaders.path_of(name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a:b", "CON", "nul.txt", "ada.", "ada ", "x" * 300, "-rf"])
def test_a_name_that_some_disk_would_not_take_is_refused(nodes, name: str):
    with pytest.raises(nodes.error, match=r"becomes a file's or a folder's name"):
        nodes.folders.plain_name(name)
    assert nodes.folders.plain_name("アダ Zoë-1.5_b") == "アダ Zoë-1.5_b"


def test_looking_for_a_change_reads_no_photo(nodes, monkeypatch: pytest.MonkeyPatch):
    photo = nodes.base / "input" / "people" / "a.png"
    photo.write_bytes(b"one")
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("read"))
    before = nodes.loaders.LoadPhotos.fingerprint_inputs("people")
    os.utime(photo, (1, 1))
    assert nodes.loaders.LoadPhotos.fingerprint_inputs("people") != before


def test_the_example_photo_is_offered_over_no_file_and_stops_nothing_where_it_cannot_be(nodes, caplog):
    offered = nodes.base / "input" / "astronaut.jpg"
    nodes.folders.offer_example_photo()
    assert offered.read_bytes() == (ROOT / "metalora" / "data" / "astronaut.jpg").read_bytes()
    offered.write_bytes(b"the user's own")
    nodes.folders.offer_example_photo()
    assert offered.read_bytes() == b"the user's own"
    folder = nodes.base / "input"
    shutil.rmtree(folder)
    folder.write_bytes(b"")  # no folder: nothing can be written into it, by root neither
    nodes.folders.offer_example_photo()
    assert "--input-directory" in caplog.text

"""The nodes in ComfyUI's own page, in a real browser. METALORA_SCREENSHOTS=FOLDER keeps what it looks like."""

import json
import os
from pathlib import Path

import pytest
from comfyui import ROOT, needs_comfyui
from comfyui_page import BROWSER, Page, browsing
from comfyui_server import serving

from metalora.backbones.miniature import FOLDER as MINIATURE
from tools.workflows.schemas import FOREIGN, NEWEST, OLDEST, RECORDS

pytestmark = [needs_comfyui, pytest.mark.skipif(BROWSER is None, reason="needs Chromium (apt-get install chromium)")]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
TRAINING = "app.graph._nodes.find(n => n.type == 'MetaLoRA_TrainPersonalization')"
SMALL = {
    "MetaLoRA_AugmentFaceCrops": {"resolution": 64},
    "MetaLoRA_TrainPersonalization": {"steps": 150},
    "KSampler": {"steps": 2},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with serving(folder / "base") as server, browsing(server.address, folder / "profile") as opened:
        yield opened


def kept(page: Page, name: str) -> None:
    if folder := os.environ.get("METALORA_SCREENSHOTS"):
        page.picture(Path(folder, f"{name}.jpg"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_opens_with_every_node_and_every_value(page: Page, path: Path):
    page.open_graph(path)
    page.close_dialogs()
    unknown = "app.graph._nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
    missing = set(json.loads(page.run(f"JSON.stringify({unknown})")))
    assert not missing or path.stem == "7 Compare with other methods", missing
    assert missing <= FOREIGN.keys() | (RECORDS[NEWEST].keys() - RECORDS[OLDEST].keys())
    shown = page.run("JSON.stringify(app.graph._nodes.map(n => [n.id, (n.widgets || []).map(w => w.value)]))")
    values = {number: values for number, values in json.loads(shown)}
    known = [n for n in json.loads(path.read_text(encoding="utf-8"))["nodes"] if n["type"] not in missing]
    for node in known:
        for value in node["widgets_values"]:
            assert value in values[node["id"]], (node["type"], value, values[node["id"]])


def test_the_training_node_shows_progress_a_preview_and_the_plot_and_its_help_opens(page: Page):
    page.open_graph(ROOT / "workflows" / "1 Miniature demo.json")
    page.close_dialogs()
    small = SMALL | ({} if MINIATURE.is_dir() else {"MetaLoRA_LoadMiniature": {"network": "tiny (random weights)"}})
    for kind, widgets in small.items():
        for name, value in widgets.items():
            change = f"n.widgets.find(w => w.name == '{name}').value = {json.dumps(value)}"
            page.run(f"app.graph._nodes.filter(n => n.type == '{kind}').forEach(n => {{ {change} }})")
    page.look_at(0.75, 500, -130)
    page.run("app.queuePrompt(0)")
    page.until(f"{TRAINING}.progress > 0.3 && {TRAINING}.progress < 1", 120)
    kept(page, "training")
    idle = "fetch('/queue').then(r => r.json()).then(q => q.queue_running.length + q.queue_pending.length == 0)"
    page.until(idle, 240)
    page.until("app.graph._nodes.find(n => n.title == 'Loss').imgs?.length > 0")
    kept(page, "trained")
    page.run(f"app.canvas.deselectAll(); app.canvas.selectNode({TRAINING})")
    page.look_at(0.8, 700, -200)
    page.until("!!document.querySelector('.selection-toolbox, [data-testid=\"info-button\"]')")
    info = "[...document.querySelectorAll('.selection-toolbox button')].find(b => b.innerHTML.includes('info'))"
    page.run(f"(document.querySelector('[data-testid=\"info-button\"]') || {info}).click()")
    page.until("document.body.innerText.includes('Cancel keeps what was learned')")
    kept(page, "help")

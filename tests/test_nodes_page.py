"""The nodes in ComfyUI's own page, in a real browser.

METALORA_SCREENSHOTS=FOLDER keeps what it looks like and how long a new user waits, at full size; else all is small.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from comfyui import needs_comfyui
from comfyui_server import serving
from graphs import (
    BLUEPRINT,
    FOREIGN,
    NEWEST,
    OLDEST,
    READABLE,
    WORKFLOWS,
    apart,
    first_version,
    opened,
    schemas_for,
    to_api,
)

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WANTED = "needs Chromium (apt-get install chromium) and Playwright (pip install playwright)"
needs_a_browser = pytest.mark.skipif(BROWSER is None or find_spec("playwright") is None, reason=WANTED)
READY = "!!(window.app && app.graph && app.canvas && app.vueAppReady)"
pytestmark = [needs_comfyui, needs_a_browser]
TRAINING = "app.graph._nodes.find(n => n.type == 'MetaLoRA_TrainPersonalization')"
LINK = "/?template=1_Miniature_demo&source=metalora"  # the README's
LOSS = "app.graph._nodes.find(n => n.title == 'Loss')"
KEPT = os.environ.get("METALORA_SCREENSHOTS")
SMALL = {
    "MetaLoRA_AugmentFaceCrops": {"resolution": 64},
    "MetaLoRA_TrainPersonalization": {"steps": 100},
    "KSampler": {"steps": 2},
}


class Page:
    """One tab."""

    def __init__(self, tab: Any):
        self.tab, self.clicks = tab, 0

    def run(self, script: str) -> Any:
        """JavaScript in the page; its value."""
        return self.tab.evaluate(script)

    def until(self, script: str, seconds: float = 60) -> None:
        """Wait for the script's value to be true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.2)

    def close_dialogs(self) -> None:
        """What greets a new user."""
        for _ in range(3):
            self.tab.keyboard.press("Escape")
            self.run("document.querySelectorAll('.p-dialog-close-button').forEach(b => b.click())")
            time.sleep(0.5)

    def click(self, text: str) -> None:
        """Press the mouse where this text stands, once it does; newer pages put soft hyphens into words."""
        softly = "\u00ad?".join(map(re.escape, text))
        self.tab.get_by_text(re.compile(rf"^\s*{softly}\s*$")).locator("visible=true").last.click(timeout=30_000)
        self.clicks += 1
        time.sleep(1)

    def open_graph(self, path: Path) -> None:
        """A workflow file, as if it were dropped on the page."""
        self.run(f"app.loadGraphData({path.read_text(encoding='utf-8')})")
        self.until("app.graph._nodes.length > 0")
        time.sleep(1)

    def look_at(self, scale: float, left: float, top: float) -> None:
        """Move the canvas."""
        view = f"app.canvas.ds.scale = {scale}; app.canvas.ds.offset = [{-left}, {-top}]"
        self.run(f"{view}; app.canvas.setDirty(true, true)")
        time.sleep(1)

    def picture(self, path: Path) -> None:
        """A screenshot as a JPEG."""
        self.tab.screenshot(path=path, type="jpeg", quality=80)


@contextmanager
def browsing(address: str) -> Iterator[Page]:
    """ComfyUI's page at an address, as a new user's browser has it; the browser ends on leaving."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as made:
        browser = made.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = Page(browser.new_page(viewport={"width": 1680, "height": 1050}))
        page.tab.goto(address, timeout=120_000)
        page.until(READY)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder, clock = tmp_path_factory.mktemp("page"), time.monotonic()
    with serving(folder / "base") as server:
        started = time.monotonic() - clock
        clock = time.monotonic()
        with browsing(server.address + LINK) as opened:
            opened.server, opened.started, opened.clock = server, started, clock
            opened.version = server.version
            yield opened


def kept(page: Page, name: str) -> None:
    if KEPT:
        page.picture(Path(KEPT, f"{name}.jpg"))


def change(page: Page, kind: str, **widgets: object) -> None:
    """Widgets of all nodes of a kind, as if they were typed."""
    for name, value in widgets.items():
        one = f"n.widgets.find(w => w.name == '{name}').value = {json.dumps(value)}"
        page.run(f"app.graph._nodes.filter(n => n.type == '{kind}').forEach(n => {{ {one} }})")


def test_from_the_link_to_a_picture_in_one_click_with_progress_preview_plot_and_help(page: Page):
    """On 0.3.64, which knows no such link, in four from the empty page."""
    time.sleep(3)  # a person looks first; the page is still busy
    if page.version == OLDEST:
        page.close_dialogs()
        page.clock = time.monotonic()
        for text in ("Templates", "metalora", "1_Miniature_demo"):
            page.click(text)
    page.until(f"!!{TRAINING}")
    page.run("app.ui.settings.setSettingValue('Comfy.Minimap.Visible', false)")
    if not KEPT:
        for kind, widgets in SMALL.items():
            change(page, kind, **widgets)
    change(page, "MetaLoRA_TrainPersonalization", preview="images")
    page.click("Run")
    page.until("Object.keys(app.nodePreviewImages || {}).length > 0", 120)
    page.until(f"{TRAINING}.progress > 0.5 && {TRAINING}.progress < 1", 120)
    kept(page, "training")
    idle = "fetch('/queue').then(r => r.json()).then(q => q.queue_running.length + q.queue_pending.length == 0)"
    page.until(idle, 300)
    seconds = time.monotonic() - page.clock
    page.until(f"{LOSS}.imgs?.length > 0")
    assert page.clicks == (4 if page.version == OLDEST else 1)
    if KEPT:
        write_path(page, seconds)
    kept(page, "trained")
    page.run(f"app.canvas.deselectAll(); app.canvas.selectNode({TRAINING})")
    page.look_at(0.8, 600, -150)
    page.until("!!document.querySelector('.selection-toolbox, [data-testid=\"info-button\"]')")
    info = "[...document.querySelectorAll('.selection-toolbox button')].find(b => b.innerHTML.includes('info'))"
    page.run(f"(document.querySelector('[data-testid=\"info-button\"]') || {info}).click()")
    page.until("document.body.innerText.includes('Cancel keeps what was learned')")
    kept(page, "help")


def write_path(page: Page, seconds: float) -> None:
    """What a new user did and how long it took."""
    steps = page.run(f"{TRAINING}.widgets.find(w => w.name == 'steps').value")
    lines = [
        "# A new user's path, timed",
        "",
        f"ComfyUI {page.version} on the CPU, one thread, {os.cpu_count()} cores;",
        f"the shipped miniature, {steps} steps, an image every 50. A browser pressed the mouse, driven by",
        f"tests/test_nodes_page.py, which wrote this; {os.getloadavg()[0]:.0f} processes shared the cores at the time.",
        "",
        "| what | figure |",
        "|---|---|",
        f"| start of ComfyUI with the pack | {page.started:.0f} s |",
        f"| clicks after the link is opened: Run | {page.clicks} |",
        f"| from the opening of the link to images without and with the LoRA, its file and scores | {seconds:.0f} s |",
    ]
    Path(KEPT or "", "new-user.md").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_page_opens_a_workflow_sends_what_the_file_says_and_saves_the_same_again(page: Page, path: Path):
    if first_version(path) == NEWEST != page.version:
        pytest.skip("asks for a newer ComfyUI")
    page.open_graph(path)
    page.close_dialogs()
    schemas = schemas_for(first_version(path))
    saved = json.loads(page.run("JSON.stringify(app.graph.serialize())"))
    assert to_api(saved, schemas) == to_api(opened(path), schemas)
    assert apart([(*node["pos"], *node["size"]) for node in saved["nodes"]])
    sent = sent_by(page)
    known = {key: node for key, node in to_api(saved, schemas).items() if node["class_type"] not in FOREIGN}
    for key, node in known.items():  # 0.3.64's page adds an empty text to the core's previews
        assert sent[key] == {**node, "inputs": {**sent[key]["inputs"], **node["inputs"]}}


def sent_by(page: Page) -> dict:
    """What Run would send to the server; a node that this ComfyUI lacks has no class."""
    sent = json.loads(page.run("app.graphToPrompt().then(made => JSON.stringify(made.output))"))
    return {key: {part: node.get(part) for part in ("class_type", "inputs")} for key, node in sent.items()}


def test_the_blueprint_is_one_node_that_the_page_sends_as_crops_training_and_file(page: Page):
    if page.version != NEWEST:
        pytest.skip("blueprints came later than 0.3.64")
    page.open_graph(BLUEPRINT)
    shown = json.loads(page.run("JSON.stringify(app.graph._nodes[0].widgets.map(w => [w.name, w.value]))"))
    assert dict(shown) == {"name": "person", "class_name": "person", "steps": 625, "rank": 1, "preview": "loss curve"}
    change(page, app_kind := json.loads(page.run("JSON.stringify(app.graph._nodes[0].type)")), name="ada", steps=7)
    kinds = {node["class_type"]: node["inputs"] for node in sent_by(page).values()}
    assert app_kind not in kinds
    trained = kinds["MetaLoRA_TrainPersonalization"]
    assert (trained["name"], trained["steps"]) == ("ada", 7)
    assert kinds["MetaLoRA_MergeToLora"]["name"] == "ada"
    assert {"crops", "heads"} < trained.keys()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_opening_view_shows_words_and_where_the_images_will_be(page: Page, path: Path):
    """At 1366 x 768: a scale at which the page draws text, and every node that saves an image."""
    page.tab.set_viewport_size({"width": 1366, "height": 768})
    page.open_graph(path)
    scale, (left, top) = json.loads(page.run("JSON.stringify([app.canvas.ds.scale, Array.from(app.canvas.ds.offset)])"))
    assert scale >= READABLE
    bars = page.run("app.canvas.canvas.getBoundingClientRect().top")
    boxes = "app.graph._nodes.filter(n => n.type == 'SaveImage').map(n => [...n.pos, ...n.size])"
    for x, y, width, height in json.loads(page.run(f"JSON.stringify({boxes})")):
        ends = ((x + width + left) * scale, (y + height + top) * scale + bars)
        assert ends[0] <= 1366, ends
        assert ends[1] <= 768, ends
    kept(page, f"opened {path.stem}")

"""ComfyUI's page in a headless Chromium, which Playwright drives."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WANTED = "needs Chromium (apt-get install chromium) and Playwright (pip install playwright)"
needs_a_browser = pytest.mark.skipif(BROWSER is None or find_spec("playwright") is None, reason=WANTED)
READY = "!!(window.app && app.graph && app.canvas && app.vueAppReady)"


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

"""ComfyUI's page in a headless Chromium, driven through the browser's own debugging protocol; aiohttp is ComfyUI's."""

import asyncio
import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
READY = "!!(window.app && app.graph && app.canvas && app.vueAppReady)"
ESCAPE = {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27}
# The centre of what shows exactly this text, or nothing yet. Newer pages put soft hyphens into words.
PLACE_OF = """(() => {
    const shown = e => e.checkVisibility() && (e.innerText || "").replaceAll("\\u00ad", "").trim() == %s;
    const found = [...document.querySelectorAll("body *")].filter(shown).pop();
    if (!found) return null;
    found.scrollIntoView({block: "center"});
    const box = found.getBoundingClientRect();
    return JSON.stringify([box.x + box.width / 2, box.y + box.height / 2]);
})()"""


class Page:
    """One tab; every call waits for its answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, session: Any, wire: Any):
        self.loop, self.session, self.wire, self.number = loop, session, wire, 0
        self.clicks = 0

    def call(self, method: str, **parameters: Any) -> dict:
        """A command of the debugging protocol; its result."""
        return self.loop.run_until_complete(self._answer(method, parameters))

    async def _answer(self, method: str, parameters: dict) -> dict:
        self.number += 1
        await self.wire.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            message = json.loads((await self.wire.receive()).data)
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    def run(self, script: str) -> Any:
        """JavaScript in the page; its value."""
        made = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in made, json.dumps(made["exceptionDetails"])[:1000]
        return made["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """The script's value once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.2)
        return value

    def go(self, address: str) -> None:
        """Open an address and wait for ComfyUI's page."""
        self.call("Page.navigate", url=address)
        time.sleep(1)
        self.until(READY)

    def close_dialogs(self) -> None:
        """What greets a new user."""
        for _ in range(3):
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, **ESCAPE)
            self.run("document.querySelectorAll('.p-dialog-close-button').forEach(b => b.click())")
            time.sleep(0.5)

    def click(self, text: str, seconds: float = 30) -> None:
        """Press the mouse where this text stands, once it does, scrolled into sight."""
        where = json.loads(self.until(PLACE_OF % json.dumps(text), seconds))
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)
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
        path.parent.mkdir(parents=True, exist_ok=True)
        made = self.call("Page.captureScreenshot", format="jpeg", quality=80)
        path.write_bytes(base64.b64decode(made["data"]))


@contextmanager
def browsing(address: str, profile: Path) -> Iterator[Page]:
    """ComfyUI's page at an address, as a new user's browser has it; the browser ends on leaving."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1680,1050", "--hide-scrollbars"]
    flags += [f"--remote-debugging-port={port}", f"--user-data-dir={profile}", "about:blank"]
    browser = subprocess.Popen([str(BROWSER), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        page = loop.run_until_complete(connected(loop, tab_of(port)))
        for domain in ("Page", "Runtime"):
            page.call(f"{domain}.enable")
        page.go(address)
        yield page
        loop.run_until_complete(page.session.close())
    finally:
        loop.close()
        browser.terminate()
        browser.wait(30)


def tab_of(port: int) -> str:
    """The address of the first tab's debugger, once the browser is there."""
    for _ in range(150):
        with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as tabs:
            return next(tab["webSocketDebuggerUrl"] for tab in json.load(tabs) if tab["type"] == "page")
        time.sleep(0.2)
    raise AssertionError("the browser did not start")


async def connected(loop: asyncio.AbstractEventLoop, address: str) -> Page:
    import aiohttp

    session = aiohttp.ClientSession()
    return Page(loop, session, await session.ws_connect(address, max_msg_size=0))

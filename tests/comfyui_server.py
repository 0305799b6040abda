"""A real ComfyUI server with the pack in custom_nodes, on the CPU, driven through its HTTP API."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from comfyui import ROOT

Graph = dict[str, dict]


class Server:
    """A running ComfyUI; everything it writes is under `base`."""

    def __init__(self, base: Path, port: int):
        self.base, self.address = base, f"http://127.0.0.1:{port}"

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(errors="replace")

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, content: dict) -> dict:
        request = urllib.request.Request(self.address + path, json.dumps(content).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()[:3000]}") from error

    def queue(self, graph: Graph) -> str:
        return self.post("/prompt", {"prompt": graph})["prompt_id"]

    def wait(self, prompt: str, seconds: float = 300) -> dict:
        """The prompt's history once it has ended, however it did."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"/history/{prompt}")
            if prompt in history:
                return history[prompt]
            time.sleep(0.2)
        raise AssertionError(f"the prompt did not end within {seconds} s:\n{self.log[-2000:]}")

    def run(self, graph: Graph) -> dict[str, dict]:
        """What each output node showed; an AssertionError with the server's words if a node failed."""
        history = self.wait(self.queue(graph))
        assert history["status"]["status_str"] == "success", json.dumps(history["status"]["messages"])[:4000]
        return history["outputs"]

    def image(self, shown: dict) -> Path:
        """The file of the first image that a node showed."""
        found = shown["images"][0]
        return self.base / found["type"] / found["subfolder"] / found["filename"]


@contextlib.contextmanager
def serving(base: Path, pack: Path = ROOT) -> Iterator[Server]:
    """A server on a free port with this pack, stopped on leaving."""
    (base / "custom_nodes").mkdir(parents=True)
    (base / "input").mkdir()
    (base / "custom_nodes" / "metalora").symlink_to(pack)
    shutil.copy(ROOT / "metalora" / "data" / "astronaut.jpg", base / "input")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "main.py", "--cpu", "--base-directory", base, "--port", port, "--disable-api-nodes"]
    environment = {**os.environ, "METALORA_CACHE": str(base / "cache"), "OMP_NUM_THREADS": "1"}
    with (base / "server.log").open("w") as log:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=os.environ["COMFYUI_PATH"], env=environment, stdout=log, stderr=log
        )
        try:
            yield started(Server(base, port), process)
        finally:
            process.terminate()
            process.wait(30)


def started(server: Server, process: subprocess.Popen) -> Server:
    """The server once it answers."""
    for _ in range(600):
        assert process.poll() is None, server.log[-3000:]
        with contextlib.suppress(OSError):
            server.get("/queue")
            return server
        time.sleep(0.2)
    raise AssertionError(f"the server did not answer:\n{server.log[-3000:]}")

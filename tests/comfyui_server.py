"""A real ComfyUI server with the pack in custom_nodes, on the CPU, driven through its HTTP API."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from comfyui import ROOT

Graph = dict[str, dict]
TINY = "tiny (random weights)"


class Server:
    """A running ComfyUI; everything it writes is under `base`."""

    def __init__(self, base: Path, port: int):
        self.base, self.address = base, f"http://127.0.0.1:{port}"

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(errors="replace")

    @property
    def version(self) -> str:
        return self.get("/system_stats")["system"]["comfyui_version"]

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

    def wait(self, prompt: str, seconds: float = 900) -> dict:
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

    def refused(self, graph: Graph) -> str:
        """What the node that fails says."""
        messages = self.wait(self.queue(graph))["status"]["messages"]
        (said,) = [content["exception_message"] for kind, content in messages if kind == "execution_error"]
        return said

    def image(self, shown: dict) -> Path:
        """The file of the first image that a node showed."""
        found = shown["images"][0]
        return self.base / found["type"] / found["subfolder"] / found["filename"]


@contextlib.contextmanager
def serving(base: Path, pack: Path = ROOT, others: Sequence[Path] = ()) -> Iterator[Server]:
    """A server on a free port with this pack and others, stopped on leaving."""
    (base / "custom_nodes").mkdir(parents=True)
    (base / "input").mkdir()
    for name, folder in [("metalora", pack), *((other.name, other) for other in others)]:
        (base / "custom_nodes" / name).symlink_to(folder)
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
    for _ in range(3000):  # a crowded machine takes minutes
        assert process.poll() is None, server.log[-3000:]
        with contextlib.suppress(OSError):
            server.get("/queue")
            return server
        time.sleep(0.2)
    raise AssertionError(f"the server did not answer:\n{server.log[-3000:]}")


def training(network: str = TINY, **options: object) -> Graph:
    """Nodes 1 to 6: a small FLUX, a photo, crops, the control's Meta-Down, training, merging."""
    settings = {"name": "ada", "class_name": "woman", "steps": 20, "rank": 1, "learning_rate": 3e-3, "seed": 0}
    settings |= {"sites": "all", "trigger": "", "caption": "a photo of a {trigger}{class}", "batch": 1}
    settings |= {"time_sampling": "logit-normal", "weight_decay": 0.01, "max_grad_norm": 0.0, "flips": True}
    settings |= {"gradient_checkpointing": "auto", "preview": "none", "preview_every": 50, **options}
    crops = {"face": "largest", "resolution": 64, "max_upscale": 4.0, "ratios": "1:1, 3:4", "scales": "1.5, 2.5"}
    crops |= {"learn_from": "crops", "finder": "sface", "photo": ["2", 0]}
    model = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}
    return {
        "1": node("MetaLoRA_LoadMiniature", network=network),
        "2": node("LoadImage", image="astronaut.jpg"),
        "3": node("MetaLoRA_AugmentFaceCrops", **crops),
        "4": node("MetaLoRA_LoadMetaDown", file="random (untrained control)"),
        "5": node("MetaLoRA_TrainPersonalization", crops=["3", 0], meta_down=["4", 0], **model, **settings),
        "6": node("MetaLoRA_MergeToLora", adapter=["5", 0], name="ada", key_format="diffusers"),
    }


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}

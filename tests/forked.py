"""Commands of `metalora` as processes that need no second of imports: a server that has imported all, and forks.

python tests/forked.py       one JSON list a line, [folder, log, word, ...], starts a command; its number is printed
"""

import gc
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = (
    "metalora.cli metalora.jobs.personalize metalora.jobs.meta_train metalora.jobs.benchmark.run matplotlib.figure "
    "metalora.measure.sface metalora.backbones.pipeline metalora.backbones.tiny_flux metalora.jobs.fitting jsonschema "
    "diffusers.models.transformers.transformer_flux diffusers.models.autoencoders.autoencoder_kl transformers psutil "
    "cv2 onnx matplotlib.backends.backend_agg"
)


class Commands:
    """Starts commands and waits for them."""

    def __init__(self, cache: Path):
        environment = {**os.environ, "METALORA_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.server = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, folder: Path, log: Path, words: list[str]) -> int:
        """The process that runs `metalora WORDS` in a folder."""
        self.server.stdin.write(json.dumps([str(folder), str(log), *words]) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def status(self, process: int, *, wait: bool = True) -> int | None:
        """How a command ended: its exit status, minus the signal that killed it; None while it runs."""
        while True:
            self.server.stdin.write(json.dumps(process) + "\n")
            self.server.stdin.flush()
            found = json.loads(self.server.stdout.readline())
            if found is not None or not wait:
                return found
            time.sleep(0.02)

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()


def serve() -> None:
    """Until nobody asks any more."""
    for name in MODULES.split():
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # what is imported is no garbage: a job need not look through it
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            process, status = os.waitpid(asked, os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if process else None), flush=True)
        else:
            process = os.fork()
            if not process:
                run(*asked)
            print(process, flush=True)


def run(folder: str, log: str, *words: str) -> None:
    """In the new process: a command, as the shell would run it."""
    from metalora.cli import main

    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), stream)
    sys.argv = ["metalora", *words]
    sys.exit(main(words))


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    serve()

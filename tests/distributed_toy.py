"""One of several processes of a stage 1 run on the toy network; torchrun starts it. Not a test itself.

python distributed_toy.py FOLDER STEPS DTYPE [KILL_RANK KILL_STEP]: goes on from FOLDER's last checkpoint, writes
FOLDER/result.pt. With KILL_RANK, that process kills itself with -9 in the middle of KILL_STEP, once.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from stage_one import CONFIG, toy_batches, toy_training
from toy import ToyDenoiser, ToyNetwork

from metalora.jobs.meta_train.checkpoints import Checkpoints, gathered
from metalora.jobs.processes import joined_processes
from metalora.method.meta_train import meta_train


def main(folder: Path, steps: int, dtype: torch.dtype, kill: tuple[int, int] | None) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    denoiser = ToyDenoiser(ToyNetwork().requires_grad_(False).to(dtype))
    config = replace(CONFIG, steps=steps)
    with joined_processes(config.batch, torch.device("cpu")) as ranks:
        training = toy_training(config, ranks, dtype)
        checkpoints = Checkpoints(folder, {"kind of run": "toy"}, keep=2)
        latest, start, losses = checkpoints.latest(), 0, []
        if latest is not None:
            start, history = checkpoints.load(latest, training)
            losses = history["losses"]

        def batches():
            for batch in toy_batches(training, config, start):
                if kill == (ranks.index, batch.step) and not (folder / "killed").exists():
                    (folder / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

        with training.adapters.attached(denoiser.network):
            for step in meta_train(denoiser, training, batches(), config):
                losses.append(step.loss)
                if step.index % 4 == 0 or step.index == steps:
                    checkpoints.save(training, step.index, {"losses": losses})
        heads = gathered(training)
        if ranks.index == 0:
            result = {"down": training.down.flat.data, "losses": losses, "heads": heads, "began": start}
            torch.save(result, folder / "result.pt")


if __name__ == "__main__":
    kill = (int(sys.argv[4]), int(sys.argv[5])) if len(sys.argv) > 4 else None
    main(Path(sys.argv[1]), int(sys.argv[2]), getattr(torch, sys.argv[3]), kill)

"""One of several processes of a stage 1 run on the toy network; torchrun starts it. Not a test itself.

python distributed_toy.py FOLDER OBJECTIVE DTYPE [--stop STEP] [--kill RANK STEP]: goes on from FOLDER's last
checkpoint, writes FOLDER/result.pt. With --stop, all processes stop after that step; with --kill, that process kills
itself with -9 after it, once, while the others are in the next.
"""

import argparse
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import across_toy
import stage_one
import torch
from toy import ToyDenoiser, ToyNetwork

from metalora.config import Phase
from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs.meta_train import Checkpoints, TensorBoard, train
from metalora.jobs.meta_train.objectives import PaperRun, Run
from metalora.method.world import World, joined_processes

CONFIGS = {"paper": stage_one.CONFIG, "across-photos": across_toy.CONFIG}


def new_run(config: MetaTrainConfig, world: World, dtype: torch.dtype) -> Run:
    """As the job's own `new_run`, on toy people."""
    if config.objective == "across-photos":
        return across_toy.toy_run(config, across_toy.ToyPeople(dtype), world)
    people = SimpleNamespace(held_out_people=list, batches=stage_one.loaded)
    return PaperRun(people, stage_one.toy_training(config, world, dtype))


def main(folder: Path, objective: str, dtype: torch.dtype, stop: int, kill: list[int]) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    denoiser = ToyDenoiser(ToyNetwork().requires_grad_(False).to(dtype))
    config = replace(CONFIGS[objective], save_every=4, keep=2)
    with joined_processes(config.batch, torch.device("cpu")) as world:
        run = new_run(config, world, dtype)
        checkpoints = Checkpoints(folder, {"kind of run": objective}, config.keep)
        latest = checkpoints.latest()
        began = 0 if latest is None else int(latest.stem.removeprefix("step-"))
        with run.adapters.attached(denoiser.network):
            job = train(denoiser, run, config, world, checkpoints, folder / "logs", TensorBoard(None))
            for progress in job:
                if isinstance(progress, Phase):
                    continue
                if kill == [world.rank, progress.index] and not (folder / "killed").exists():
                    (folder / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                if progress.index == stop:
                    job.close()
        state = run.state()
        if world.rank == 0:
            path = checkpoints.latest()
            history = checkpoints.load(path)[2]
            torch.save({"state": state, "history": history, "began": began}, folder / "result.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("objective", choices=CONFIGS)
    parser.add_argument("dtype")
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--kill", type=int, nargs=2, default=[])
    given = parser.parse_args()
    main(given.folder, given.objective, getattr(torch, given.dtype), given.stop, given.kill)

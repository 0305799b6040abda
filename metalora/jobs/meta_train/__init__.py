"""Stage 1 as a user asks for it: photos of many people in, a Meta-Down file out."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ...backbones.protocol import Backbone, Denoiser
from ...config import Phase, UserError
from ...config_meta_train import MetaTrainConfig
from ...method.world import ALONE, World
from ...store import files
from ...store.cache import Cache
from .. import Job
from ..training_files import check_output
from .data import prepared
from .logs import Checkpoints, TensorBoard, write_logs
from .objectives import History, Run, new_run
from .people import People


@dataclass(frozen=True)
class MetaTrained:
    """What a finished run leaves."""

    meta_down: Path
    folder: Path  # logs and checkpoints
    history: History
    config: MetaTrainConfig


def meta_train_people(
    backbone: Backbone,
    source: Path,
    out: Path,
    config: MetaTrainConfig,
    *,
    cache: Cache,
    world: World = ALONE,
    tensorboard: bool = False,
    overwrite: bool = False,
) -> Job[MetaTrained]:
    """Train a Meta-Down on everyone in `source` and write `out`; logs and checkpoints go to the folder beside it.

    A stopped run, or one that was killed, goes on from its last checkpoint when the same call is made again, with any
    number of processes. The folder of several machines must be one that all of them see.
    """
    check_output(out, overwrite)
    folder = out.with_suffix("")
    board = TensorBoard(folder / "tensorboard" if tensorboard and world.rank == 0 else None)
    people = yield from prepared(source, backbone, config, cache, world)
    run = new_run(people, backbone, config, world)
    metadata = run_metadata(backbone, people, config)
    checkpoints = Checkpoints(folder / "checkpoints", metadata, config.keep)
    yield Phase(
        f"meta-training {run.about()}, {len(people.held_out)} people held out, "
        f"{world.size} process{'es' if world.size > 1 else ''}"
    )
    with backbone.denoiser() as denoiser:
        denoiser.checkpointing(config.gradient_checkpointing)
        with run.adapters.attached(denoiser.network):
            try:
                history = yield from train(denoiser, run, config, world, checkpoints, folder, board)
            finally:
                board.close()
    if world.rank == 0:
        metadata = {**metadata, "steps": str(config.steps)}
        if history["validated"]:
            metadata["unseen"] = json.dumps(
                {name.replace("_", " "): f"{history[name][-1]:.4f}" for name in run.measures}
            )
        files.write(out, run.result(), "meta-down", metadata)
    world.wait()
    return MetaTrained(out, folder, history, config)


def train(
    denoiser: Denoiser,
    run: Run,
    config: MetaTrainConfig,
    world: World,
    checkpoints: Checkpoints,
    folder: Path,
    board: TensorBoard,
) -> Job[History]:
    """From the start or the last checkpoint to the end, with checkpoints and validations on the way."""
    history: History = {name: [] for name in ("losses", "validated", *run.measures)}
    start, latest = 0, checkpoints.latest()
    if latest is not None:
        state, start, history = checkpoints.load(latest)
        run.restore(state, start)
        yield Phase(f"going on from step {start} of {latest}")
    board.begin(start)
    if start == 0:
        validate(denoiser, run, 0, history, board)
    saved = start

    def save(step: int) -> None:
        state = run.state()  # every process takes part
        world.wait()
        if world.rank == 0:
            checkpoints.save(state, step, history)

    try:
        for step in run.steps(denoiser, start):
            history["losses"].append(step.loss or 0.0)
            board.add(step.index, loss=step.loss or 0.0, **run.place(step.index - 1))
            if step.index % config.save_every == 0 or step.index == config.steps:
                found = validate(denoiser, run, step.index, history, board)
                save(step.index)
                saved = step.index
                if world.rank == 0:
                    yield from map(Phase, write_logs(folder, history, run))
                if found:
                    yield Phase(f"step {step.index}, unseen people: {found}")
            yield step
    except (UserError, KeyboardInterrupt):  # the latter may come while the weights move
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"Out of memory with batch {config.batch} at {config.resolution} px ({error}). Use "
            "--gradient-checkpointing, a lower --resolution or --batch, or more processes."
        ) from error
    except BaseException:  # stopped between two steps, or inside one by ComfyUI's Cancel: half a step moves nothing
        if world.size == 1 and saved < len(history["losses"]):  # several processes stop at different steps
            save(len(history["losses"]))
        raise
    return history


def validate(denoiser: Denoiser, run: Run, step: int, history: History, board: TensorBoard) -> str:
    """What the run finds on people who are held out, kept; in words, with the best so far. Nothing where nobody is."""
    found = run.validate(denoiser)
    if not found:
        return ""
    history["validated"].append(float(step))
    for name, value in zip(run.measures, found, strict=True):
        history[name].append(value)
        board.add(step, **{f"unseen_{name}": value})
    words = (f"{name.replace('_', ' ')} {value:.4f}" for name, value in zip(run.measures, found, strict=True))
    gains = run.gains(history)
    best = gains.index(max(gains))
    said = "the best so far" if best == len(gains) - 1 else f"the best was at step {history['validated'][best]:.0f}"
    return f"{', '.join(words)}; {said}"


def run_metadata(backbone: Backbone, people: People, config: MetaTrainConfig) -> dict[str, str]:
    """What the files say of themselves: every option and the hash of every input; no photo and no path."""
    metadata = {
        "base": backbone.name,
        "base_fingerprint": backbone.fingerprint("transformer"),
        **backbone.architecture.metadata,
        "domain": config.class_name,
        "sites": config.sites,
        "meta_rank": str(config.meta_rank),
        "people": str(len(people.train)),
        "data": people.digest,
        "objective": config.objective,
        "options": json.dumps(asdict(config)),
    }
    return metadata | ({"face_embedder": people.embedder} if people.embedder else {})

"""Stage 1 as a user asks for it: photos of many people in, a Meta-Down file out."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..backbones.protocol import Backbone, Denoiser
from ..config import Phase, UserError
from ..config_meta_train import MetaTrainConfig
from ..method.adaptability import HeldOut, adaptability
from ..method.adapter import random_meta_down
from ..method.buckets import deal, place
from ..method.flow import generator_of
from ..method.meta_train import MetaTraining, meta_train, planned
from ..method.ranks import ALONE, Ranks
from ..store import files
from ..store.cache import Cache
from ..store.prefetch import prefetched
from . import Job
from .checkpoints import Checkpoints
from .meta_train_logs import History, TensorBoard, write_logs
from .personalize import check_output
from .stage_one_data import prepared
from .stage_one_people import People


@dataclass(frozen=True)
class MetaTrained:
    """What a finished run leaves."""

    meta_down: Path
    folder: Path  # logs and checkpoints
    history: History


def meta_train_people(
    backbone: Backbone,
    source: Path,
    out: Path,
    config: MetaTrainConfig,
    *,
    cache: Cache,
    ranks: Ranks = ALONE,
    tensorboard: bool = False,
    overwrite: bool = False,
) -> Job[MetaTrained]:
    """Train a Meta-Down on everyone in `source` and write `out`; logs and checkpoints go to the folder beside it.

    A stopped run, or one that was killed, goes on from its last checkpoint when the same call is made again, with any
    number of processes. The folder of several machines must be one that all of them see.
    """
    check_output(out, overwrite)
    folder = out.with_suffix("")
    board = TensorBoard(folder / "tensorboard" if tensorboard and ranks.index == 0 else None)
    people = yield from prepared(source, backbone, config, cache, ranks)
    sites = backbone.sites(config.sites)
    training = MetaTraining(
        sites,
        random_meta_down(sites, config.meta_rank, generator_of(config.seed, "meta-down")),
        deal(people.train, config),
        config,
        backbone.device,
        ranks,
    )
    facts = facts_of_run(backbone, people, config)
    checkpoints = Checkpoints(folder / "checkpoints", facts, config.keep)
    yield Phase(
        f"meta-training on {len(people.train)} people in {len(training.buckets)} buckets, "
        f"{len(people.held_out)} held out, {ranks.count} process{'es' if ranks.count > 1 else ''}"
    )
    with backbone.denoiser() as denoiser:
        denoiser.checkpointing(config.gradient_checkpointing)
        with training.adapters.attached(denoiser.network):
            try:
                history = yield from train(denoiser, training, people, checkpoints, folder, board)
            finally:
                board.close()
    if ranks.index == 0:
        tensors = {f"{name}.down": down for name, down in training.meta_down().items()}
        files.write(out, tensors, "meta-down", {**facts, "steps": str(config.steps)})
    ranks.wait()
    return MetaTrained(out, folder, history)


def train(
    denoiser: Denoiser,
    training: MetaTraining,
    people: People,
    checkpoints: Checkpoints,
    folder: Path,
    board: TensorBoard,
) -> Job[History]:
    """From the start or the last checkpoint to the end, with checkpoints and validations on the way."""
    config, ranks = training.config, training.ranks
    history: History = {"losses": [], "validated": [], "before": [], "after": []}
    start, latest = 0, checkpoints.latest()
    if latest is not None:
        start, history = checkpoints.load(latest, training)
        yield Phase(f"going on from step {start} of {latest}")
    board.begin(start)
    held_out = people.held_out_people()
    if start == 0:
        validate(denoiser, training, held_out, 0, history, board)
    saved = start
    batches = prefetched(people.batches(training, planned(training, config, start)))
    try:
        with closing(batches):
            for step in meta_train(denoiser, training, batches, config):
                history["losses"].append(step.loss or 0.0)
                board.add(step.index, loss=step.loss or 0.0, bucket=float(place(step.index - 1, config).visit))
                if step.index % config.save_every == 0 or step.index == config.steps:
                    validate(denoiser, training, held_out, step.index, history, board)
                    checkpoints.save(training, step.index, history)
                    saved = step.index
                    if ranks.index == 0:
                        write_logs(folder, history, config)
                yield step
    except UserError:
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"Out of memory with batch {config.batch} at {config.resolution} px ({error}). Use "
            "--gradient-checkpointing, a lower --resolution or --batch, or more processes."
        ) from error
    except BaseException:  # stopped between two steps, or inside one by ComfyUI's Cancel: half a step moves nothing
        if ranks.count == 1 and saved < len(history["losses"]):  # several processes stop at different steps
            checkpoints.save(training, len(history["losses"]), history)
        raise
    return history


def validate(
    denoiser: Denoiser,
    training: MetaTraining,
    held_out: Sequence[HeldOut],
    step: int,
    history: History,
    board: TensorBoard,
) -> None:
    """What a few steps of stage 2 gain held-out people with the present Meta-Down."""
    if not held_out:
        return
    before, after = adaptability(denoiser, training, held_out)
    for name, value in (("validated", float(step)), ("before", before), ("after", after)):
        history[name].append(value)
    board.add(step, unseen_before=before, unseen_after=after)


def facts_of_run(backbone: Backbone, people: People, config: MetaTrainConfig) -> dict[str, str]:
    """What the files say of themselves: every knob and the hash of every input; no photo and no path."""
    return {
        "base": backbone.name,
        "base_fingerprint": backbone.fingerprint("transformer"),
        "shape": json.dumps(asdict(backbone.shape)),
        "domain": config.class_name,
        "sites": config.sites,
        "meta_rank": str(config.meta_rank),
        "people": str(len(people.train)),
        "data": people.digest,
        "knobs": json.dumps(asdict(config)),
    }

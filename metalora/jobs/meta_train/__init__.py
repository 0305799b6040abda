"""Stage 1 as a user asks for it: photos of many people in, a Meta-Down file out.

On the way it leaves checkpoints, a CSV and a plot always, TensorBoard where it is asked for.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...backbones.protocol import Backbone, Denoiser
from ...config import Phase, UserError
from ...config_meta_train import MetaTrainConfig
from ...method.world import ALONE, World
from ...store import files
from ...store.cache import Cache
from ...store.files import write_bytes
from .. import SMOOTHING, Job, new_figure, optional_drawing, png
from ..training_files import Options, check_output, check_same_run, names_in
from .data import prepared
from .objectives import History, Run, new_run
from .people import People

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FREE_IN_STAGE_ONE = ("save_every", "keep", "gradient_checkpointing", "validation_steps")


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
    """Train a Meta-Down on everyone in `source` and write `out`; logs and checkpoints go to `<out>.run` beside it.

    A stopped run, or one that was killed, goes on from its last checkpoint when the same call is made again, with any
    number of processes. The folder of several machines must be one that all of them see.
    """
    check_output(out, overwrite)
    folder = out.with_suffix(".run")  # `people` beside people.safetensors may be the photos
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--out {out} lies in {source}, where every folder is taken for a person: write elsewhere.")
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
    checkpoints: "Checkpoints",
    folder: Path,
    board: "TensorBoard",
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


def validate(denoiser: Denoiser, run: Run, step: int, history: History, board: "TensorBoard") -> str:
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


class Checkpoints:
    """A folder of step-00000500.safetensors of stage 1, the last few kept, for any number of processes."""

    def __init__(self, folder: Path, metadata: dict[str, str], keep: int):
        self.folder, self.metadata, self.keep = folder, metadata, keep

    def latest(self) -> Path | None:
        """The newest one."""
        found = self.all()
        return found[-1] if found else None

    def all(self) -> list[Path]:
        """Old to new; half-written files have another ending."""
        return sorted(path for path in self.folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d+", path.stem))

    def save(self, state: dict[str, Tensor], step: int, history: History) -> None:
        """Write what a run is at this step, and delete what is too old; process 0 alone calls this."""
        kept = {f"history.{name}": torch.tensor(values, dtype=torch.float64) for name, values in history.items()}
        path = self.folder / f"step-{step:08d}.safetensors"
        files.write(path, state | kept, "checkpoint", {**self.metadata, "step": str(step)})
        for old in self.all()[: -self.keep]:
            old.unlink()

    def load(self, path: Path) -> tuple[dict[str, Tensor], int, History]:
        """(what the run was, steps done, history). Refuses another run's checkpoint."""
        tensors, metadata = files.read(path, ("checkpoint",))
        check_same_run(path, metadata, self.metadata, fixed_options_of_stage_one)
        history = {name: tensors.pop(f"history.{name}").tolist() for name in names_in(tensors, "history")}
        return tensors, int(metadata["step"]), history


def fixed_options_of_stage_one(options: Options) -> Options:
    """Those that a run that goes on must share; `steps` too if the learning rate falls towards the end."""
    options = {**asdict(MetaTrainConfig()), **options}  # one that came later was as it is by default
    free = (*FREE_IN_STAGE_ONE, "steps") if options["objective"] == "paper" else FREE_IN_STAGE_ONE
    return {name: option for name, option in options.items() if name not in free}


def write_logs(folder: Path, history: History, run: Run) -> list[str]:
    """steps.csv, validation.csv and progress.png, each replaced whole; what could not be drawn, in a sentence."""
    rows = [",".join(["step", *run.place(0), "loss"])]
    for index, loss in enumerate(history["losses"]):
        rows.append(",".join([str(index + 1), *map(str, run.place(index).values()), f"{loss:.6g}"]))
    write_bytes(folder / "steps.csv", ("\n".join(rows) + "\n").encode())
    rows = [",".join(["step", *(f"loss_{name}" for name in run.measures)])]
    for step, *found in zip(history["validated"], *(history[name] for name in run.measures), strict=True):
        rows.append(",".join([str(int(step)), *(f"{value:.6g}" for value in found)]))
    write_bytes(folder / "validation.csv", ("\n".join(rows) + "\n").encode())
    failures: list[str] = []
    with optional_drawing(str(folder / "progress.png"), failures):
        save_progress(folder / "progress.png", history, run)
    return failures


def save_progress(path: Path, history: History, run: Run) -> None:
    """The training loss; below, what matters: what unseen people gain."""
    figure, (above, below) = new_figure(8, 6, rows=2)
    losses = history["losses"]
    means = [sum(losses[max(0, i - SMOOTHING) : i]) / min(i, SMOOTHING) for i in range(1, len(losses) + 1)]
    above.plot(range(1, len(losses) + 1), means, linewidth=1.5)
    above.set(ylabel="flow-matching loss", title=f"training loss, mean of {SMOOTHING} steps")
    title, y, lines = run.plotted(history)
    for label, values in lines.items():
        below.plot(history["validated"], values, marker="o", markersize=3, label=label)
    below.set(xlabel="step", ylabel=y, title=title)
    below.legend()
    write_bytes(path, png(figure))


class TensorBoard:
    """The same numbers for TensorBoard; nothing where no folder is given."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.writer: SummaryWriter | None = None
        if folder is not None:  # found out before photos are encoded
            try:
                import torch.utils.tensorboard  # noqa: F401
            except ImportError as error:
                raise UserError("--tensorboard needs its package: pip install tensorboard.") from error

    def begin(self, step: int) -> None:
        """From here on; what a stopped run has shown of later steps is taken back."""
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)

    def add(self, step: int, **values: float) -> None:
        """Numbers of a step."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()

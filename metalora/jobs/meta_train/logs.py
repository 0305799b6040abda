"""What a stage 1 run leaves on the way: checkpoints, a CSV and a plot always, TensorBoard where it is asked for."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...config import UserError
from ...config_meta_train import MetaTrainConfig
from ...store import files
from ...store.files import write_bytes
from .. import SMOOTHING
from ..plots import new_figure, optional_drawing, png
from ..training_files import Options, check_same_run, names_in
from .objectives import History, Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FREE_IN_STAGE_ONE = ("save_every", "keep", "gradient_checkpointing", "validation_steps")


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

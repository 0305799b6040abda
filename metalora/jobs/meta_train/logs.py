"""What a stage 1 run shows of itself: a CSV and a plot always, TensorBoard where it is asked for."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import UserError
from ...store.files import write_bytes
from .. import SMOOTHING
from ..plots import optional_drawing
from ..resume import History
from .objectives import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
    from matplotlib.figure import Figure  # imported late: not every job draws

    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    losses = history["losses"]
    means = [sum(losses[max(0, i - SMOOTHING) : i]) / min(i, SMOOTHING) for i in range(1, len(losses) + 1)]
    above.plot(range(1, len(losses) + 1), means, linewidth=1.5)
    above.set(ylabel="flow-matching loss", title=f"training loss, mean of {SMOOTHING} steps")
    title, y, lines = run.plotted(history)
    for label, values in lines.items():
        below.plot(history["validated"], values, marker="o", markersize=3, label=label)
    below.set(xlabel="step", ylabel=y, title=title)
    below.legend()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


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

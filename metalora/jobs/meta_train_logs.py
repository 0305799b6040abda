"""What a stage 1 run shows of itself: a CSV and a plot always, TensorBoard where it is asked for."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import UserError
from ..config_meta_train import MetaTrainConfig
from ..method.buckets import place
from ..store.files import write_bytes
from .plots import SMOOTHING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

History = dict[str, list[float]]  # "losses", one a step; "validated", "before" and "after", one a validation


def write_logs(folder: Path, history: History, config: MetaTrainConfig) -> None:
    """steps.csv, validation.csv and progress.png, each replaced whole."""
    rows = ["step,bucket_visit,warm_up,loss"]
    for index, loss in enumerate(history["losses"]):
        visit, _, warm_up = place(index, config)
        rows.append(f"{index + 1},{visit},{int(warm_up)},{loss:.6g}")
    write_bytes(folder / "steps.csv", ("\n".join(rows) + "\n").encode())
    rows = ["step,loss_before_adapting,loss_after_adapting"]
    rows += [
        f"{int(step)},{before:.6g},{after:.6g}"
        for step, before, after in zip(history["validated"], history["before"], history["after"], strict=True)
    ]
    write_bytes(folder / "validation.csv", ("\n".join(rows) + "\n").encode())
    save_progress(folder / "progress.png", history, config)


def save_progress(path: Path, history: History, config: MetaTrainConfig) -> None:
    """The training loss, warm-ups shaded; below, what held-out people gain from a few steps."""
    from matplotlib.figure import Figure  # imported late: not every job draws

    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    losses = history["losses"]
    means = [sum(losses[max(0, i - SMOOTHING) : i]) / min(i, SMOOTHING) for i in range(1, len(losses) + 1)]
    above.plot(range(1, len(losses) + 1), means, linewidth=1.5)
    for start in range(0, len(losses), config.bucket_steps):
        above.axvspan(start, min(start + config.warmup_steps, len(losses)), alpha=0.12, color="gray", linewidth=0)
    above.set(ylabel="flow-matching loss", title=f"training loss, mean of {SMOOTHING} steps; grey: only heads move")
    if history["validated"]:
        gain = [before - after for before, after in zip(history["before"], history["after"], strict=True)]
        below.plot(history["validated"], gain, marker="o", markersize=3)
    below.axhline(0, color="gray", linewidth=0.8)
    below.set(
        xlabel="step",
        ylabel="fall of the loss on unseen photos",
        title=f"held-out people after {config.validation_steps} steps on one photo: higher is better",
    )
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
                raise UserError("--tensorboard needs its package: pip install 'metalora[tensorboard]'.") from error

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

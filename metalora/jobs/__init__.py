"""One function per thing a user asks for: it opens, wires and saves; the rooms it wires never import each other.

A job is a generator. It yields a `Phase` when it turns to something else and a `Step` when a step is done, and returns
its result. Whoever drives it shows the progress, and stops it between two steps by closing it: what was done is saved.
`run` drives one in silence or for a caller who shows it, `driven` on a terminal.
"""

import io
import logging
import os
import signal
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any, TypeAlias, TypeVar

from tqdm import tqdm

from ..config import Phase, Step, UserError

SMOOTHING = 25  # steps that a shown loss is the mean of: a single one is mostly the luck of the drawn time

Result = TypeVar("Result")
Progress: TypeAlias = Phase | Step
Job: TypeAlias = Generator[Progress, None, Result]


def run(job: Job[Result], show: Callable[[Progress], None] = lambda progress: None) -> Result:
    """Drive a job to its end, showing its progress; its result. An exception from `show` stops it as closing does."""
    try:
        while True:
            show(next(job))
    except StopIteration as end:
        return end.value
    finally:
        job.close()


# Ctrl-C, the system's shutdown or a batch queue, a terminal that is closed, Windows' Ctrl-Break
SIGNALS = [one for one in signal.Signals if one.name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")]
BAR = "  {n_fmt}/{total_fmt} |{bar:28}| {rate_inv_fmt}{postfix}  {elapsed} gone, {remaining} left"
ONE_PRESS = 1.0  # seconds: a bouncing key, or a shell and a launcher that both pass on one Ctrl-C


class Stopped(KeyboardInterrupt):
    """A signal ended the job between two steps, so that all it had done is saved."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


class Console:
    """Shows phases as lines and steps as a bar with mean loss, time of a step and time left, on standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.bar: tqdm | None = None
        self.losses: deque[float] = deque(maxlen=SMOOTHING)
        self.quiet = quiet
        self._asked: tuple[int, float] | None = None  # which signal, and when
        self._ending = False

    def __call__(self, progress: Progress) -> None:
        """Show it; after a signal, end the job here, between two steps."""
        if self._asked:
            self._ending = True
            raise Stopped(self._asked[0])
        if self.quiet:
            return
        if isinstance(progress, Phase):
            self.close()
            print(progress.text, file=sys.stderr)
        else:
            self._advance(progress)

    def close(self) -> None:
        """End the bar, if one is shown."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
            self.losses.clear()

    def _advance(self, step: Step) -> None:
        if self.bar is not None and (self.bar.total != step.total or step.index < self.bar.n):
            self.close()
        if self.bar is None:
            self.bar = tqdm(
                total=step.total,
                initial=max(0, step.index - 1),
                unit="step",
                bar_format=BAR,
                mininterval=0.1 if sys.stderr.isatty() else 20,
            )
        if step.loss is not None:
            self.losses.append(step.loss)
            self.bar.set_postfix_str(f"loss {fmean(self.losses):.4f}", refresh=False)
        self.bar.update(step.index - self.bar.n)
        if step.index == step.total:
            self.close()

    @contextmanager
    def listening(self) -> Iterator["Console"]:
        """While inside, the first signal ends the job after the present step; one that comes later at once."""
        heard = [one for one in SIGNALS if signal.getsignal(one) != signal.SIG_IGN]  # nohup's wish is kept
        before = {one: signal.signal(one, self._hear) for one in heard}
        try:
            yield self
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            self.close()

    def _hear(self, signum: int, _frame: FrameType | None) -> None:
        """May interrupt anything, a step or a line that is being printed; so it prints through neither of both."""
        if self._ending:
            return
        if self._asked:
            if time.monotonic() - self._asked[1] > ONE_PRESS:
                self._ending = True
                raise KeyboardInterrupt
            return
        self._asked = signum, time.monotonic()
        with suppress(OSError):  # nobody reads
            if signal.Signals(signum).name == "SIGHUP":
                leave_terminal()
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")


def leave_terminal() -> None:
    """Print to nowhere from now on what went to a terminal, which is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):  # isatty says no of one that is gone
            os.dup2(nowhere, stream)


def driven(job: Job[Result], *, quiet: bool = False) -> Result:
    """Run a job with its progress on the terminal, unless it is quiet; signals stop it where all is saved."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a kernel that 4 bits on a CPU could use
    with Console(quiet=quiet).listening() as console:
        return run(job, console)


def save_loss_curve(path: Path, losses: dict[str, list[float]]) -> None:
    """Write `loss_curve`."""
    from ..store.files import write_bytes  # imports torch, which the command line's help does without

    write_bytes(path, loss_curve(losses))


@contextmanager
def optional_drawing(what: str, said: list[str]) -> Iterator[None]:
    """Draw inside. A failure is one sentence more in `said`: a picture of the work is not the work."""
    try:
        yield
    except (UserError, ImportError, OSError, RuntimeError, ValueError) as error:
        said.append(f"{what} could not be drawn ({error}); all else is there")


def loss_curve(losses: dict[str, list[float]]) -> bytes:
    """A PNG, one line a run: faint single losses, and their running mean over the last `SMOOTHING` steps."""
    figure, axes = new_figure(7, 4)
    for label, values in losses.items():
        steps = range(1, len(values) + 1)
        means = [sum(values[max(0, i - SMOOTHING) : i]) / min(i, SMOOTHING) for i in steps]
        (line,) = axes.plot(steps, means, linewidth=2, label=label)
        axes.plot(steps, values, linewidth=0.7, alpha=0.25, color=line.get_color())
    axes.set(xlabel="step", ylabel="flow-matching loss", title=f"training loss, mean of {SMOOTHING} steps")
    axes.legend()
    return png(figure)


def new_figure(width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, below each other if there are several, with a grid."""
    from matplotlib.figure import Figure  # imported late: not every job draws

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, sharex=True)
    for each in figure.axes:
        each.grid(alpha=0.3)
    return figure, axes


def png(figure: Any) -> bytes:
    """The file: no version of a program is in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()

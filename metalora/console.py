"""What a person sees while a job runs, and how they stop it."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

from .config import Phase, Step
from .jobs import Progress


class Console:
    """Shows phases as lines and steps as a bar with loss, step time and time left, on standard error."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.stop_asked = False

    def __call__(self, progress: Progress) -> None:
        """Show it; after Ctrl-C, end the job here, between two steps."""
        if isinstance(progress, Phase):
            self.close()
            print(progress.text, file=sys.stderr)
        else:
            self._advance(progress)
        if self.stop_asked:
            raise KeyboardInterrupt

    def close(self) -> None:
        """End the bar, if one is shown."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _advance(self, step: Step) -> None:
        if self.bar is not None and (self.bar.total != step.total or step.index <= self.bar.n):
            self.close()
        if self.bar is None:
            self.bar = tqdm(
                total=step.total,
                initial=step.index - 1,
                unit="step",
                bar_format=BAR,
                mininterval=0.1 if sys.stderr.isatty() else 20,
            )
        if step.loss is not None:
            self.bar.set_postfix_str(f"loss {step.loss:.4f}", refresh=False)
        self.bar.update(step.index - self.bar.n)
        if step.index == step.total:
            self.close()

    @contextmanager
    def listening(self) -> Iterator["Console"]:
        """While inside, the first Ctrl-C ends the job after the present step; the second at once."""

        def ask(_signal: int, _frame: FrameType | None) -> None:
            if self.stop_asked:
                raise KeyboardInterrupt
            self.stop_asked = True
            print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)
            self.close()


BAR = "  {n_fmt}/{total_fmt} |{bar:28}| {rate_inv_fmt}{postfix}  {elapsed} gone, {remaining} left"

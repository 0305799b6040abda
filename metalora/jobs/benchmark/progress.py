"""How long a benchmark run still takes, by what its steps took so far."""

import time
from collections.abc import Iterator
from contextlib import closing

from ...config import Step
from .. import Job, Progress


class TimeLeft:
    """Counts steps of several kinds, each with its own pace."""

    def __init__(self, totals: dict[str, int]):
        self.left = dict(totals)
        self.seconds = dict.fromkeys(totals, 0.0)
        self.timed = dict.fromkeys(totals, 0)

    def did(self, kind: str, steps: int, seconds: float | None) -> None:
        """Some steps are done; `seconds` is None for steps that an earlier call did."""
        self.left[kind] = max(0, self.left[kind] - steps)
        if seconds is not None:
            self.seconds[kind] += seconds
            self.timed[kind] += steps

    def __str__(self) -> str:
        """In words; what has not been timed yet is named."""
        known = [kind for kind in self.left if self.timed[kind]]
        unknown = [kind for kind in self.left if not self.timed[kind] and self.left[kind]]
        minutes = sum(self.left[kind] * self.seconds[kind] / self.timed[kind] for kind in known) / 60
        said = f"about {in_words(minutes)} left" if known else "time left not known yet"
        return said + (f", without {' and '.join(unknown)}" if known and unknown else "")


def in_words(minutes: float) -> str:
    """As long as it is worth saying."""
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def timed(job: Job[None], left: TimeLeft, kind: str, renumbered: Iterator[Step] | None = None) -> Job[None]:
    """The same job; its steps are timed, and numbered anew where they are part of something longer."""
    last = 0
    clock = time.perf_counter()
    with closing(job):
        for progress in job:
            if not isinstance(progress, Step):
                yield progress
                continue
            advance = progress.index - last if progress.index > last else 1
            left.did(kind, advance - 1, None)
            left.did(kind, 1, time.perf_counter() - clock)
            last = progress.index
            yield shown(progress, renumbered)
            clock = time.perf_counter()


def shown(step: Step, renumbered: Iterator[Step] | None) -> Progress:
    """The step as a progress bar is to have it."""
    return step if renumbered is None else next(renumbered)

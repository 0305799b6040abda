"""One function per thing a user asks for: it opens, wires and saves; the rooms it wires never import each other.

A job is a generator. It yields a `Phase` when it turns to something else and a `Step` when a step is done, and returns
its result. Whoever drives it shows the progress, and stops it between two steps by closing it: what was done is saved.
"""

from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

from ..config import Phase, Step

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

"""Where the time of a longer piece of work goes: seconds, and the processor's, of each of its phases."""

import time
from collections.abc import Callable

from metalora.config import Phase
from metalora.jobs import Job

from .measuring import synchronize

Times = dict[str, tuple[float, float]]  # (seconds, the processor's seconds): the second hardly change on a busy machine


class PhaseClock:
    """Time goes to one phase after another; a phase may come again."""

    def __init__(self, first: str, device: str):
        self.found: Times = {}
        self.name, self.device, self.began = first, device, (time.perf_counter(), time.process_time())

    def turn_to(self, following: str) -> None:
        """What passed since the last turn was the present phase's."""
        synchronize(self.device)
        now, before = (time.perf_counter(), time.process_time()), self.found.get(self.name, (0.0, 0.0))
        self.found[self.name] = (before[0] + now[0] - self.began[0], before[1] + now[1] - self.began[1])
        self.name, self.began = following, now


def beginning(text: str) -> str:
    """A phase's name without its particulars."""
    return text.split(":")[0]


def timed(job: Job, first: str, last: str, device: str, named: Callable[[str], str] = beginning) -> Times:
    """Of each phase of a job. What comes before its first word is `first`; what comes after a phase's last step is
    `last`, in which {} is the phase.
    """
    clock, present = PhaseClock(first, device), first
    for sign in job:
        if isinstance(sign, Phase):
            present = named(sign.text)
            clock.turn_to(present)
        else:
            clock.turn_to(last.format(present) if sign.index == sign.total else present)
    clock.turn_to(last.format(present))
    return clock.found


def summed(phases: Times) -> list[float]:
    """[seconds, the processor's seconds] over all phases."""
    return [sum(parts) for parts in zip(*phases.values(), strict=True)]

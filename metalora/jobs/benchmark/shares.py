"""A benchmark run cut into units, in the same way for any number of processes, and what these know of each other.

A process leaves a file that is there as long as the process is: on one machine a dead process is known by its number,
on others by a file that is not touched any more.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

from ...config import NONE, Phase, Step, UserError
from ...store import files
from .. import Job, Result
from .plan import Cell, Layout, Plan
from .train import Training, trainings_of


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many."""

    rank: int = 0
    processes: int = 1

    def of(self, units: Sequence["Unit"]) -> list["Unit"]:
        """What this process does."""
        return list(units[self.rank :: self.processes])


def share_from_environment() -> Share:
    """As torchrun says; alone where it says nothing."""
    try:
        share = Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError as error:
        raise UserError(f"RANK and WORLD_SIZE must be numbers, as torchrun sets them ({error}).") from error
    if not 0 <= share.rank < share.processes:
        raise UserError(f"RANK is {share.rank} of WORLD_SIZE {share.processes}: it must lie from 0 to one less.")
    return share


@dataclass(frozen=True)
class Unit:
    """What belongs together: a group that is trained at once, or what a class gets without a LoRA."""

    name: str
    trainings: Sequence[Training]
    images: Sequence[Cell]  # to be made
    scores: Sequence[Cell]  # to be scored; images from elsewhere are not made


def units_of(plan: Plan, layout: Layout) -> list[Unit]:
    """The whole run: a unit for each group of people and, where no LoRA is worn, for each class."""
    learned = [variant for variant in plan.variants() if variant.method != NONE]
    groups = sorted({person.group for person in plan.people})
    units = []
    for group in groups:
        people = [person for person in plan.people if person.group == group]
        name = f"group {group + 1} of {len(groups)}, {len(people)} x {people[0].class_name}"
        made, brought = list(product(learned, people)), list(product(layout.external_variants(), people))
        units.append(Unit(name, trainings_of(plan, group), made, made + brought))
    bare = [variant for variant in plan.variants() if variant.method == NONE]
    for variant, class_name in product(bare, dict.fromkeys(person.class_name for person in plan.people)):
        cells = [(variant, person) for person in plan.people if person.class_name == class_name]
        units.append(Unit(f"{class_name} without a LoRA", [], cells[:1], cells))  # one person's images are everyone's
    return units


Work = TypeVar("Work")
POLL = 0.5  # seconds between looks for what the others have done
PULSE = 5.0  # seconds between touches of the file
JOINING = 120.0  # seconds that a process may not be there, such as before it starts
SILENCE = 1800.0  # seconds without progress: loading a large base from a slow disk takes minutes


class Partners:
    """This process and the others that share `folder`."""

    def __init__(self, folder: Path, share: Share):
        self.folder, self.share = folder, share

    def present(self, job: Job[Result]) -> Job[Result]:
        """The same job; the others see that it goes on."""
        if self.share.processes == 1:
            return (yield from job)
        mark, touched = self._mark(), float("-inf")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with closing(job):
                while True:
                    if time.monotonic() - touched > PULSE:
                        mark.touch()
                        touched = time.monotonic()
                    try:
                        progress = next(job)
                    except StopIteration as end:
                        return end.value
                    yield progress
        finally:
            mark.unlink(missing_ok=True)
            with suppress(OSError):  # others are still there
                self.folder.rmdir()

    def wait_for(self, shares: Mapping[int, Sequence[Work]], is_done: Callable[[Work], bool]) -> Job[None]:
        """Until all of every process's share is done; a UserError where nobody is left to do it."""
        total = sum(map(len, shares.values()))
        waiting = {rank: [one for one in share if not is_done(one)] for rank, share in shares.items()}
        if any(waiting.values()):
            yield Phase("waiting for the other processes")
        seen = dict.fromkeys(shares, time.monotonic())
        while any(waiting.values()):
            yield Step(total - sum(map(len, waiting.values())), total)
            time.sleep(POLL)
            for rank in shares:
                if self._is_there(rank):
                    seen[rank] = time.monotonic()
            waiting = {rank: [one for one in left if not is_done(one)] for rank, left in waiting.items()}
            for rank, left in waiting.items():
                if left and time.monotonic() - seen[rank] > JOINING:
                    raise UserError(
                        f"Process {rank} of {self.share.processes} is not there any more, and {len(left)} of its "
                        f"{len(shares[rank])} shares are not done. Repeat the same command, with as many processes as "
                        "you like: what is there is not made again."
                    )

    def _mark(self) -> Path:
        return files.partial_of(self.folder / f"process-{self.share.rank}")

    def _is_there(self, rank: int) -> bool:
        files.sweep(self.folder)
        marks = []
        for path in self.folder.glob(f"process-{rank}.*.partial"):
            with suppress(FileNotFoundError):
                marks.append(path.stat().st_mtime)
        return bool(marks) and self._mark().stat().st_mtime - max(marks) < SILENCE  # both by the disk's clock

"""A benchmark run cut into units, in the same way for any number of processes."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...config import NONE, Phase, Step, UserError
from .. import Job
from .layout import Layout
from .plan import Plan, PlannedPerson, Variant
from .train import Training, trainings_of

Work = TypeVar("Work")
Cell = tuple[Variant, PlannedPerson]  # a person's images of a variant


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many."""

    rank: int = 0
    processes: int = 1

    def of(self, units: Sequence[Work]) -> list[Work]:
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
    """The whole run."""
    return [*group_units(plan, layout), *class_units(plan)]


def group_units(plan: Plan, layout: Layout) -> list[Unit]:
    """A unit for each group of people."""
    learned = [variant for variant in plan.variants() if variant.method != NONE]
    groups = sorted({person.group for person in plan.people})
    units = []
    for group in groups:
        people = [person for person in plan.people if person.group == group]
        name = f"group {group + 1} of {len(groups)}, {len(people)} x {people[0].class_name}"
        made = [(variant, person) for variant in learned for person in people]
        brought = [(variant, person) for variant in layout.external_variants() for person in people]
        units.append(Unit(name, trainings_of(plan, group), made, made + brought))
    return units


def class_units(plan: Plan) -> list[Unit]:
    """A unit for each class where no LoRA is worn: one person's images are everyone's."""
    units = []
    for variant in plan.variants():
        if variant.method == NONE:
            for class_name in dict.fromkeys(person.class_name for person in plan.people):
                people = [person for person in plan.people if person.class_name == class_name]
                cells = [(variant, person) for person in people]
                units.append(Unit(f"{class_name} without a LoRA", [], cells[:1], cells))
    return units


POLL = 0.5  # seconds between looks for what the others have done


def wait_for(work: Sequence[Work], is_done: Callable[[Work], bool]) -> Job[None]:
    """Until the other processes have done all of it. torchrun ends this process too if one of them ends by an error."""
    left = [one for one in work if not is_done(one)]
    if left:
        yield Phase("waiting for the other processes")
    while left:
        yield Step(len(work) - len(left), len(work))
        time.sleep(POLL)
        left = [one for one in left if not is_done(one)]

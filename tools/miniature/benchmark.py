"""Whose photos the mini benchmark holds, and which of them is the reference: numbers only, no drawing."""

import itertools
from dataclasses import dataclass

from .people import SPLITS, Person, person
from .photo import Photo, photo

PARTS = {"several-photos": "test", "single-photo": "single"}  # a part of the benchmark -> the split of its people
VALIDATION = {"several-photos": "validation"}  # the same of people on whom settings may be chosen; does not ship
PORTRAITS = (600_012, 600_001, 600_020, 600_009, 600_010, 600_017)  # the demo's people, in no split; picked by eye


@dataclass(frozen=True)
class Entry:
    part: str
    role: str  # "reference" or "held-out"
    person: Person
    index: int  # of the photo: person and index make it again
    photo: Photo

    @property
    def file(self) -> str:
        return f"photos/{self.person.number}-{self.index}.jpg"


def entries(parts: dict[str, str] = PARTS, most: int | None = None) -> list[Entry]:
    """Every photo of the benchmark: a person's reference first, then as many others as the split says.

    `most` people of each split, if not all of them.
    """
    found = []
    for part, split in parts.items():
        for number in SPLITS[split].numbers[:most]:
            who = person(number)
            reference = reference_index(who)
            others = [index for index in range(SPLITS[split].photos_of(number)) if index != reference]
            others = others[: SPLITS[split].photos_of(number) - 1]
            found.append(Entry(part, "reference", who, reference, photo(who, reference)))
            found += [Entry(part, "held-out", who, index, photo(who, index)) for index in others]
    return found


def reference_index(who: Person) -> int:
    """The first of a person's photos that one would send to a stranger: from the front, neutral, evenly lit."""
    return next(index for index in itertools.count() if _plain(photo(who, index)))


def _plain(one: Photo) -> bool:
    said = one.attributes
    return said["turn"] == "front" and said["expression"] == "neutral" and said["light"] != "side"

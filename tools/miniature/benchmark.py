"""Whose photos the mini benchmark holds, and which of them is the reference: numbers only, no drawing."""

import itertools
from dataclasses import dataclass

from .people import SPLITS, Person, person
from .photo import Photo, photo

Parts = dict[str, tuple[str, ...]]  # a part of the benchmark -> the splits of its people

PARTS: Parts = {"several-photos": ("test",), "single-photo": ("single",)}
VALIDATION: Parts = {"several-photos": ("validation",)}  # people on whom settings may be chosen; does not ship
CLAIM: Parts = {"several-photos": ("test", "claim")}  # the benchmark's people with held-out photos and more of the kind
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


def entries(parts: Parts = PARTS, most: int | None = None) -> list[Entry]:
    """Every photo of the benchmark: a person's reference first, then as many others as the split says.

    `most` people of each split, if not all of them.
    """
    found = []
    for part, split in ((part, SPLITS[name]) for part, names in parts.items() for name in names):
        for number in split.numbers[:most]:
            who = person(number)
            reference = reference_index(who)
            others = [index for index in range(split.photos_of(number)) if index != reference]
            others = others[: split.photos_of(number) - 1]
            found.append(Entry(part, "reference", who, reference, photo(who, reference)))
            found += [Entry(part, "held-out", who, index, photo(who, index)) for index in others]
    return found


def reference_index(who: Person) -> int:
    """The first of a person's photos that one would send to a stranger: from the front, neutral, evenly lit."""
    return next(index for index in itertools.count() if _plain(photo(who, index)))


def _plain(one: Photo) -> bool:
    said = one.attributes
    return said["turn"] == "front" and said["expression"] == "neutral" and said["light"] != "side"

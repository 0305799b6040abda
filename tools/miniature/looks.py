"""What a head looks like: skin, eyes, brows, lips, beard and hair, drawn at random but plausibly together.

What is only painted is a dict of the shaders' uniforms; what they mean stands in `shaders/`. Colours are light (linear
RGB). Backgrounds and clothes are prompted by their names, so each must stay recognisable; they are muted because a
saturated wall makes every face in front of it look like a poster.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Uniforms = dict[str, Any]  # numbers, and arrays of them

# Named colours in sRGB, 0..1.
COLOURS = {
    "white": (0.90, 0.90, 0.88),
    "grey": (0.55, 0.56, 0.58),
    "black": (0.13, 0.13, 0.14),
    "red": (0.60, 0.27, 0.25),
    "orange": (0.80, 0.53, 0.33),
    "yellow": (0.84, 0.76, 0.46),
    "green": (0.34, 0.52, 0.36),
    "blue": (0.37, 0.48, 0.66),
    "purple": (0.50, 0.39, 0.58),
    "brown": (0.44, 0.32, 0.23),
}
HAIR_COLOURS = {
    "black": (0.105, 0.085, 0.08),
    "brown": (0.30, 0.195, 0.125),
    "blond": (0.74, 0.60, 0.39),
    "red": (0.52, 0.25, 0.13),
    "grey": (0.62, 0.615, 0.61),
}
# From the lightest to the darkest skin.
SKIN = ((0.89, 0.725, 0.63), (0.83, 0.65, 0.53), (0.72, 0.53, 0.41), (0.54, 0.37, 0.27), (0.37, 0.25, 0.19))
IRISES = {
    "brown": (0.25, 0.15, 0.08),
    "hazel": (0.36, 0.25, 0.13),
    "green": (0.33, 0.38, 0.24),
    "blue": (0.33, 0.45, 0.57),
    "grey": (0.46, 0.51, 0.53),
}
BEARDS = {"shaven": (0.0, 0.0), "stubble": (0.42, 0.40), "moustache": (0.0, 1.0), "beard": (1.0, 1.0)}  # jaw, lip
HAIR_STYLES = ("bald", "cropped", "short", "curly", "tied", "bobbed", "long", "wavy", "fringed")
# How often a style is worn.
WORN_BY = {
    "woman": dict(short=0.12, curly=0.12, tied=0.14, bobbed=0.16, long=0.18, wavy=0.16, fringed=0.12),
    "man": dict(bald=0.10, cropped=0.28, short=0.38, curly=0.14, bobbed=0.05, long=0.05),
}


def linear(srgb) -> np.ndarray:
    """Display values to light: everything that is shaded or averaged is light."""
    return np.clip(np.asarray(srgb, dtype=float), 0.0, 1.0) ** 2.2


def varied(name: str, rng: np.random.Generator, spread: float = 0.03) -> np.ndarray:
    """A shade of a named colour: lighter or darker, and a little off its hue."""
    return linear(np.asarray(COLOURS[name]) + rng.normal() * spread + rng.normal(0, 0.4 * spread, 3))


@dataclass(frozen=True, kw_only=True)
class Hair:
    style: str
    colour_name: str
    hairline: np.ndarray  # [4]: height, temple recession, sideburn, widow's peak
    volume: float  # how far it stands off the scalp, face units
    crown: float  # extra volume on top
    parting: float  # -1 (right) to 1 (left)
    length: float  # y of the tips of hanging hair, face units below the eyes; 0: it does not hang
    opening: float  # half the angle that hanging hair leaves free for the face, radians
    wave: float
    painted: Uniforms


def draw_hair(rng, kind: str, age: float, darkness: float, origin) -> Hair:
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
    shade = np.asarray(HAIR_COLOURS[colour_name]) * (1 + rng.normal() * 0.10) * (1 + rng.normal(0, 0.03, 3))
    painted = {"hair_colour": linear(shade), "hair_asymmetry": rng.normal() * 0.5, "droop": droop, "curl": curl}
    return Hair(
        style=style,
        colour_name=colour_name,
        hairline=hairline,
        volume=volume,
        crown=crown,
        parting=rng.uniform(-1, 1),
        length=length,
        opening=rng.uniform(0.80, 1.05) if rng.uniform() < 0.75 else rng.uniform(1.15, 1.35),
        wave=rng.uniform(0.6, 1.0) if style == "wavy" else rng.uniform(0.0, 0.15),
        painted=painted | {"roots": rng.uniform(0.1, 0.4) if style == "bald" else 1.0},
    )


def draw_skin(rng, age: float, darkness: float, kind: str) -> Uniforms:
    place = darkness * (len(SKIN) - 1)
    below = min(int(place), len(SKIN) - 2)
    tone = np.asarray(SKIN[below]) * (1 - place + below) + np.asarray(SKIN[below + 1]) * (place - below)
    freckled = darkness < 0.35 and rng.uniform() < 0.25
    freckles = rng.uniform(0.2, 0.7)
    return {
        "skin": linear(tone * (1 + rng.normal(0, 0.022, 3))),
        "mottle": rng.uniform(0.05, 0.30),
        "redness": rng.uniform(0.15, 0.85) * (1 - 0.6 * darkness),
        "freckles": freckles if freckled else 0.0,
        "wrinkles": age * rng.uniform(0.4, 1.1),
        "bags": rng.uniform(0.0, 0.25) + 0.3 * age,
        "gloss": rng.uniform(0.4, 1.0),
        "bump": rng.uniform(0.03, 0.10) + 0.05 * (kind == "man"),
        "moles": _moles(rng),
    }


def _moles(rng) -> np.ndarray:
    """[4, 4]: x, y, an unused z, radius (0: none) of marks in front of the face, at radii that 128 pixels can show."""
    moles = np.zeros((4, 4))
    for mole in moles:
        there, x, y, radius = rng.uniform(), rng.uniform(-0.9, 0.9), rng.uniform(-1.6, 0.9), rng.uniform(0.035, 0.065)
        if there < 0.16:
            mole[:] = x, y, 0.0, radius
    return moles


def draw_eyes(rng, kind: str, darkness: float) -> Uniforms:
    weights = [0.34, 0.2, 0.14, 0.20, 0.12] if darkness < 0.4 else [0.75, 0.25, 0, 0, 0]
    iris = linear(IRISES[str(rng.choice(list(IRISES), p=weights))]) * rng.uniform(0.85, 1.25)
    shade = rng.uniform(0.15, 0.75) if kind == "woman" else rng.uniform(0.05, 0.30)
    lashes = rng.uniform(0.5, 1.0) if kind == "woman" else rng.uniform(0.1, 0.4)
    return {"iris": iris, "iris_radius": rng.uniform(0.46, 0.52), "lid_shade": shade, "lashes": lashes}


def draw_brows(rng, kind: str, colour: np.ndarray) -> Uniforms:
    """Their colour is also the beard's and the lashes'."""
    height = 0.37 + rng.uniform(-0.05, 0.08)
    arch = rng.uniform(0.02, 0.13) if kind == "woman" else rng.uniform(-0.01, 0.08)
    thickness = rng.uniform(0.03, 0.085) if kind == "woman" else rng.uniform(0.055, 0.11)
    shape = height, arch, thickness, rng.uniform(0.5, 1.0)
    ends = rng.uniform(0.16, 0.26), rng.uniform(0.84, 1.0), rng.uniform(-0.10, 0.12), rng.normal() * 0.15
    return {"brow_colour": colour, "brow": shape, "brow_ends": ends}


def draw_lips(rng, kind: str, skin: np.ndarray) -> Uniforms:
    bare = skin * np.array([0.88, 0.60, 0.58]) * rng.uniform(0.85, 1.1)
    painted = linear(np.array([rng.uniform(0.55, 0.75), rng.uniform(0.22, 0.36), rng.uniform(0.26, 0.40)]))
    paint = rng.uniform(0.2, 0.75) if kind == "woman" and rng.uniform() < 0.5 else 0.0
    painted = painted * np.clip(skin.mean() / 0.45, 0.35, 1.0)  # the same lipstick is deeper on darker skin
    return {"lips": (1 - paint) * bare + paint * painted, "lip_strength": rng.uniform(0.55, 0.95)}


def draw_beard(rng, kind: str) -> tuple[str, Uniforms]:
    name = str(rng.choice(list(BEARDS), p=[0.45, 0.2, 0.1, 0.25])) if kind == "man" else "shaven"
    jaw, moustache = rng.uniform(0.85, 1.1), rng.uniform(0.8, 1.05)
    return name, {"beard": BEARDS[name][0] * jaw, "moustache": BEARDS[name][1] * moustache}

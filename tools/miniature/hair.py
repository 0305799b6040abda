"""Hair: a style, a colour, and the numbers that shape it."""

from dataclasses import dataclass

import numpy as np

from .palette import HAIR_COLOURS, linear

HAIR_STYLES = ("bald", "cropped", "short", "curly", "tied", "bobbed", "long", "wavy", "fringed")
# How often a style is worn.
WORN_BY = {
    "woman": dict(short=0.12, curly=0.12, tied=0.14, bobbed=0.16, long=0.18, wavy=0.16, fringed=0.12),
    "man": dict(bald=0.10, cropped=0.28, short=0.38, curly=0.14, bobbed=0.05, long=0.05),
}


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

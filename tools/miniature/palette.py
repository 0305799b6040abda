"""The named colours of the world, as light (linear RGB).

Backgrounds and clothes are prompted by these names, so each must stay recognisable; they are muted because a saturated
wall makes every face in front of it look like a poster.
"""

import numpy as np

# sRGB, 0..1
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


def linear(srgb) -> np.ndarray:
    """Display values to light: everything that is shaded or averaged is light."""
    return np.clip(np.asarray(srgb, dtype=float), 0.0, 1.0) ** 2.2


def varied(name: str, rng: np.random.Generator, spread: float = 0.03) -> np.ndarray:
    """A shade of a named colour: lighter or darker, and a little off its hue."""
    return linear(np.asarray(COLOURS[name]) + rng.normal() * spread + rng.normal(0, 0.4 * spread, 3))

"""Hair that hangs: sheets that follow the skull from the crown, then fall past the ears, leaving the face free.

A sheet is a grid: columns go around the head from the left edge of the face over the back to the right edge, rows go
from the crown down to the tips. Directions are measured from an axis through the skull: azimuth 0 is straight ahead.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter

from .looks import Hair

CENTRE = np.array([0.0, 0.55, -1.15])  # of the skull, face units
COLUMNS, DOME_ROWS, FALL_ROWS = 72, 14, 26
AZIMUTHS, POLARS, HEIGHTS = 48, 24, 48
LOWEST_SKULL = -3.0  # below, shoulders begin and hair no longer rests on anything


@dataclass(frozen=True)
class Skull:
    """How far the head reaches from its axis, by direction."""

    dome: np.ndarray  # [POLARS, AZIMUTHS]: radius from CENTRE, polar angle 0 (up) to 90 degrees
    wall: np.ndarray  # [HEIGHTS, AZIMUTHS]: distance from the vertical axis, from CENTRE's height to LOWEST_SKULL

    def dome_radius(self, polar: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
        return _sampled(self.dome, polar / (np.pi / 2) * (POLARS - 1), azimuth)

    def wall_radius(self, y: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
        return _sampled(self.wall, (CENTRE[1] - y) / (CENTRE[1] - LOWEST_SKULL) * (HEIGHTS - 1), azimuth)


def measure_skull(vertices: np.ndarray) -> Skull:
    """The skull of a person's body vertices [n, 3] at rest."""
    offset = vertices - CENTRE
    azimuth = np.arctan2(offset[:, 0], offset[:, 2])
    column = np.round((azimuth + np.pi) / (2 * np.pi) * AZIMUTHS).astype(int) % AZIMUTHS
    flat, radius = np.hypot(offset[:, 0], offset[:, 2]), np.linalg.norm(offset, axis=1)
    polar = np.arctan2(flat, offset[:, 1])
    upper = polar <= np.pi / 2 + 0.05
    dome_row = np.clip(np.round(polar / (np.pi / 2) * (POLARS - 1)).astype(int), 0, POLARS - 1)
    lower = (vertices[:, 1] <= CENTRE[1] + 0.05) & (vertices[:, 1] >= LOWEST_SKULL)
    wall_row = np.clip(
        np.round((CENTRE[1] - vertices[:, 1]) / (CENTRE[1] - LOWEST_SKULL) * (HEIGHTS - 1)).astype(int), 0, HEIGHTS - 1
    )
    return Skull(
        dome=_filled((POLARS, AZIMUTHS), dome_row[upper], column[upper], radius[upper]),
        wall=_filled((HEIGHTS, AZIMUTHS), wall_row[lower], column[lower], flat[lower]),
    )


def _filled(shape: tuple[int, int], rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The largest value of each cell; cells that no vertex fell into take their neighbours'."""
    grid = np.zeros(shape)
    np.maximum.at(grid, (rows, columns), values)
    while (grid == 0).any():
        grid = np.where(grid == 0, maximum_filter(grid, 3, mode=("nearest", "wrap")), grid)
    return gaussian_filter(grid, (1.0, 1.2), mode=("nearest", "wrap"))


def _sampled(grid: np.ndarray, row: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    column = (azimuth + np.pi) / (2 * np.pi) * AZIMUTHS
    rows, columns = np.broadcast_arrays(np.clip(row, 0, len(grid) - 1), column % AZIMUTHS)
    return map_coordinates(np.concatenate([grid, grid[:, :1]], axis=1), [rows, columns], order=1, mode="nearest")


def sheets(hair: Hair, skull: Skull, seed: float) -> list[np.ndarray]:
    """The sheets of a hair style, each [rows, columns, 3]; none for hair that only stands."""
    if hair.style == "tied":
        return [_bun(hair, skull)]
    if hair.length <= 0:
        return []
    rng = np.random.default_rng(int(seed))
    parts = [_mane(hair, skull, rng)]
    if hair.style == "fringed":
        parts.append(_fringe(hair, skull, rng))
    return parts


def _mane(hair: Hair, skull: Skull, rng: np.random.Generator) -> np.ndarray:
    """Crown to tips, open at the face from the hairline down."""
    around = np.linspace(-1, 1, COLUMNS)[None, :]
    hairline = CENTRE[1] + 0.62 + 0.25 * (hair.hairline[0] - 1.05)
    polar = np.linspace(0.02, np.pi / 2, DOME_ROWS)[:, None]
    dome_height = CENTRE[1] + skull.dome_radius(polar, np.zeros_like(polar)) * np.cos(polar)
    shift = 0.30 * hair.parting
    opening = hair.opening * _smooth(hairline + 0.15, hairline - 0.85, dome_height)
    azimuth = np.pi - (np.pi - opening) * around[:, ::-1]  # from one edge of the face over the back to the other
    azimuth = azimuth + shift * np.cos(azimuth / 2) ** 2 * _smooth(0.2, 1.2, dome_height)
    edge = 1 - np.abs(around) ** 6
    gap = hair.volume * (0.45 + 0.55 * edge) * (1 + 0.35 * hair.crown * np.cos(polar))
    radius = skull.dome_radius(polar, azimuth) + gap
    dome = CENTRE + radius[..., None] * _towards(polar, azimuth)
    return np.concatenate([dome, _fall(hair, skull, azimuth[-1], radius[-1], rng)])


def _fall(hair: Hair, skull: Skull, azimuth: np.ndarray, radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows below the dome: strands fall straight, pushed out by the head and drawn in a little below the jaw."""
    tips = -hair.length + 0.10 * _ripples(rng, COLUMNS)
    steps = np.linspace(0, 1, FALL_ROWS + 1)[1:]
    phase, rows = 2 * np.pi * _ripples(rng, COLUMNS), []
    y, previous = np.full(COLUMNS, CENTRE[1]), radius
    spread = 0.05 * _ripples(rng, COLUMNS) + 0.10
    for step in steps:
        below = CENTRE[1] + (tips - CENTRE[1]) * step
        resting = skull.wall_radius(np.maximum(below, -1.9), azimuth) + hair.volume * (0.55 + spread)
        drawn_in = previous - 0.16 * (y - below)  # hair hangs from the widest part; it never clings to the neck
        previous, y = np.maximum(resting, drawn_in), below
        depth = CENTRE[1] - below
        swing = hair.wave * 0.10 * np.sin(4.2 * depth + 0.6 * phase) * np.clip(depth - 0.5, 0, 1)
        turn = hair.wave * 0.05 * np.cos(4.2 * depth + 0.6 * phase) * np.clip(depth - 0.5, 0, 1)
        inward = 0.10 * hair.volume * np.clip(step - 0.8, 0, 1) / 0.2 if hair.length < 2.2 else 0.0
        reach, direction = previous + swing - inward, azimuth + turn
        rows.append(np.stack([CENTRE[0] + reach * np.sin(direction), below, CENTRE[2] + reach * np.cos(direction)], -1))
    return np.stack(rows)


def _fringe(hair: Hair, skull: Skull, rng: np.random.Generator) -> np.ndarray:
    """A fringe: from the crown forwards over the forehead to just above the brows."""
    azimuth = np.linspace(-0.95, 0.95, COLUMNS)[None, :]
    rows = DOME_ROWS + FALL_ROWS
    tips = 0.50 + 0.10 * np.abs(azimuth) + 0.05 * _ripples(rng, COLUMNS) - CENTRE[1]
    end = np.arctan2(skull.dome_radius(np.full_like(azimuth, 1.4), azimuth), tips)
    polar = 0.25 + (end - 0.25) * np.linspace(0, 1, rows)[:, None]
    radius = skull.dome_radius(np.minimum(polar, np.pi / 2), azimuth) + hair.volume * 0.75 + 0.06
    return CENTRE + radius[..., None] * _towards(polar, azimuth)


def _bun(hair: Hair, skull: Skull) -> np.ndarray:
    """A knot of hair high on the back of the head, where a photo from the front shows it."""
    azimuth = np.linspace(-np.pi, np.pi, COLUMNS)[None, :]
    polar = np.linspace(0.05, np.pi - 0.2, DOME_ROWS + FALL_ROWS)[:, None]
    size = 0.42 + 0.25 * (hair.crown - 0.3)
    back = 0.45
    top = skull.dome_radius(np.full((1, 1), back), np.full((1, 1), np.pi)).item() + hair.volume + 0.55 * size
    middle = CENTRE + top * np.array([0.0, np.cos(back), -np.sin(back)])
    twisted = azimuth + 0.9 * polar  # the strands wind around
    wound = size * (1 + 0.04 * np.sin(5 * azimuth))
    return middle + wound[..., None] * _towards(polar, twisted) * np.array([1.0, 0.85, 1.0])


def _towards(polar: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """[..., 3] unit directions; polar is measured from straight up, azimuth from straight ahead."""
    flat = np.sin(polar)
    return np.stack(np.broadcast_arrays(flat * np.sin(azimuth), np.cos(polar), flat * np.cos(azimuth)), -1)


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """[2 (rows - 1) (columns - 1), 3] indices of a grid stored row by row."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None, :]).ravel()
    lower = corner + columns
    return np.concatenate(
        [np.stack([corner, lower, corner + 1], -1), np.stack([corner + 1, lower, lower + 1], -1)]
    ).astype(np.int32)


def _ripples(rng: np.random.Generator, count: int) -> np.ndarray:
    """A smooth random curve of about unit size, so that neighbouring strands do nearly the same."""
    return gaussian_filter(rng.normal(size=count), 2.0, mode="nearest") * 2.2


def _smooth(start: float, end: float, value: np.ndarray) -> np.ndarray:
    """0 at start, 1 at end, smooth between; the edges may be given in either order."""
    t = np.clip((value - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)

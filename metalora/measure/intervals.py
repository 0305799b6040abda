"""How sure a mean over identities is: bootstrap over identities, and two methods compared identity by identity.

The bootstrap is the studentized one (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 12.5): with the
benchmark's 16 identities the plain percentile interval is too narrow. Of fewer than `config.FEWEST_PEOPLE` it is no use
(some draws hold nearly one identity alone, and their tiny errors stretch it without bound): callers give none then.
"""

from dataclasses import dataclass

import numpy as np

from ..config import UserError


@dataclass(frozen=True)
class Interval:
    """A mean and where it may lie."""

    mean: float
    low: float
    high: float
    count: int  # identities

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(values: list[float], level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """The interval of the mean of one value per identity."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        raise UserError(f"An interval needs at least 2 identities, got {len(sample)}.")
    center, error = sample.mean(), standard_error(sample[None])[0]
    drawn = sample[np.random.default_rng(seed).integers(0, len(sample), (draws, len(sample)))]
    errors = standard_error(drawn)
    usable = errors > 1e-12 * max(1.0, np.abs(sample).max())  # the same identity drawn every time tells nothing
    if not usable.any():
        return Interval(float(center), float(center), float(center), len(sample))
    t = (drawn[usable].mean(axis=1) - center) / errors[usable]
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(center), float(center - high * error), float(center - low * error), len(sample))


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Of the mean of each row."""
    return samples.std(axis=1, ddof=1) / np.sqrt(samples.shape[1])


def paired(one: dict[str, float], other: dict[str, float], level: float = 0.95, seed: int = 0) -> Interval:
    """The interval of the mean difference, one method minus the other, over the same identities.

    Identities differ far more than methods do; the difference within each leaves that out. An interval that does not
    hold 0 is a difference that two separate intervals may hide.
    """
    if one.keys() != other.keys():
        alone = sorted(one.keys() ^ other.keys())
        raise UserError(
            f"The two methods were scored on different identities: {len(alone)} are in one only, such as {alone[0]}. "
            "Score both on all of them, or count missing faces as zero."
        )
    return bootstrap([one[identity] - other[identity] for identity in sorted(one)], level, seed=seed)

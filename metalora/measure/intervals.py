"""How sure a mean over identities is, by bootstrap: of a score, or of two methods' differences.

Identities differ far more than methods do. The difference within each leaves that out: its interval, where it does not
hold 0, is a difference that two separate intervals may hide.

The bootstrap is the studentized one (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 12.5): with the
benchmark's 16 identities the plain percentile interval is too narrow. Where nearly all identities have one value, as
shares often do, some draws hold hardly any other, and their tiny errors would stretch the interval without bound: a
draw's error counts as at least `LEAST_ERROR` of the sample's. Of fewer than `config.FEWEST_PEOPLE` identities even so
it is no use: callers give none then.
"""

from dataclasses import dataclass

import numpy as np

from ..config import UserError

LEAST_ERROR = 0.25


@dataclass(frozen=True)
class Interval:
    """A mean and where it may lie."""

    mean: float
    low: float
    high: float
    count: int  # identities

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def of_a_share(self) -> "Interval":
        """Cut to 0..1, where a share lies: what is cut off cannot be, so that nothing is covered less often."""
        return Interval(self.mean, max(0.0, self.low), min(1.0, self.high), self.count)


def bootstrap(values: list[float], level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """The interval of the mean of one value per identity."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        raise UserError(f"An interval needs at least 2 identities, got {len(sample)}.")
    drawn = sample[np.random.default_rng(seed).integers(0, len(sample), (draws, len(sample)))]
    center, error = float(sample.mean()), float(standard_error(sample[None])[0])
    if error <= 1e-12 * max(1.0, abs(center)):  # all identities have one value
        return Interval(center, center, center, len(sample))
    t = (drawn.mean(axis=1) - center) / np.maximum(standard_error(drawn), LEAST_ERROR * error)
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    return Interval(center, float(center - high * error), float(center - low * error), len(sample))


def crossed(values: np.ndarray, level: float = 0.95, draws: int = 4_000, seed: int = 0) -> Interval:
    """The interval of the mean of values [identities, images], where each image is of one prompt and noise for all.

    Both are drawn again (Owen, The pigeonhole bootstrap, 2007), so the interval also knows that other prompts and other
    noise would have given something else; it is rather too wide than too narrow. NaN: an image without this score.
    """
    people, images = values.shape
    generator, known = np.random.default_rng(seed), np.isfinite(values)
    filled = np.where(known, values, 0.0)
    centers = np.empty(draws)
    for draw in range(draws):
        weight = np.bincount(generator.integers(0, images, images), minlength=images)
        drawn = generator.integers(0, people, people)
        counts = (known @ weight)[drawn]
        means = (filled @ weight)[drawn] / np.maximum(counts, 1)
        centers[draw] = means[counts > 0].mean() if (counts > 0).any() else np.nan
    low, high = np.nanquantile(centers, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.nanmean(values, axis=1).mean()), float(low), float(high), people)


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Of the mean of each row."""
    return samples.std(axis=1, ddof=1) / np.sqrt(samples.shape[1])

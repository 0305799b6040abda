"""An interval says how sure a mean is: right as often as it claims, and paired where pairs are to be had."""

import numpy as np
import pytest

from metalora.config import UserError
from metalora.measure.intervals import bootstrap

WORLDS, IDENTITIES = 2000, 16


@pytest.mark.parametrize("kind", ["normal", "skewed", "share"])
def test_95_percent_intervals_hold_the_truth_in_95_percent_of_worlds(kind: str):
    rng = np.random.default_rng(1)
    if kind == "normal":
        worlds, truth = rng.normal(0.6, 0.1, (WORLDS, IDENTITIES)), 0.6
    elif kind == "share":  # of 20 images each, nearly all: many people have the same value
        worlds, truth = rng.binomial(20, rng.beta(9.5, 0.5, (WORLDS, IDENTITIES))) / 20, 0.95
    else:
        worlds, truth = rng.beta(6, 2, (WORLDS, IDENTITIES)), 0.75
    held = 0
    for index, world in enumerate(worlds):
        interval = bootstrap(world.tolist(), draws=1000, seed=index)
        if kind == "share":
            interval = interval.of_a_share()
            assert 0 <= interval.low <= interval.high <= 1
        held += interval.low <= truth <= interval.high
    assert abs(held / WORLDS - 0.95) <= 0.015, held / WORLDS


def test_the_paired_interval_finds_a_difference_that_unpaired_intervals_hide():
    rng = np.random.default_rng(2)
    people = rng.normal(0.6, 0.1, IDENTITIES)
    one, other = people + 0.02 + rng.normal(0, 0.01, IDENTITIES), people + rng.normal(0, 0.01, IDENTITIES)
    assert bootstrap(one.tolist()).low < bootstrap(other.tolist()).high, "the separate intervals overlap"
    difference = bootstrap((one - other).tolist())
    assert 0 < difference.low < 0.02 < difference.high


def test_one_seed_gives_one_interval_and_equal_values_no_width():
    values = [0.5, 0.6, 0.8, 0.4]
    assert bootstrap(values) == bootstrap(values)
    flat = bootstrap([0.5, 0.5, 0.5])
    assert (flat.low, flat.mean, flat.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[1.0] * 15 + [0.5], [1.0, 1.0, 1.0, 1.0, 0.95, 0.1]])
def test_draws_that_hold_hardly_any_other_value_do_not_stretch_the_interval(values: list[float]):
    interval = bootstrap(values)
    assert min(values) < interval.low < interval.mean < interval.high < 1.1


def test_people_who_are_not_the_same_or_too_few_have_no_interval():
    with pytest.raises(UserError, match="2 are in one only, such as a"):
        paired({"a": 1.0, "b": 2.0}, {"b": 1.0, "c": 2.0})
    with pytest.raises(UserError, match="at least 2 identities, got 1"):
        bootstrap([0.5])

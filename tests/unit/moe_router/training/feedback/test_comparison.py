"""The least difference by hand, and that it is what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import ttest_1samp

from moe_router.training.feedback.comparison import SURE, compare, t_quantile

ONE = np.ones(6)


def test_where_callers_weigh_alike_it_is_the_t_test_of_their_means():
    ours, live = np.array([1, 1, 1, 0, 1, 1.0]), np.array([0, 1, 1, 0, 0, 0.0])
    found = compare([ours, live], [ONE, ONE], ["a", "a", "b", "b", "c", "c"])
    assert found.gain == pytest.approx(0.5)
    interval = ttest_1samp([0.5, 0.0, 1.0], 0.0, alternative="greater").confidence_interval(0.9)
    assert found.least == pytest.approx(interval.low)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30, 101, 20_000])
def test_the_quantile_is_scipys(freedom):
    assert t_quantile(freedom) == pytest.approx(stdtrit(freedom, SURE), rel=1e-9)


@pytest.mark.parametrize("callers", [["a"] * 6, ["a", "b"] * 3])
def test_of_one_or_two_callers_every_row_stands_for_itself(callers):
    ours, live = np.array([1, 1, 1, 0, 1, 1.0]), np.array([0, 1, 1, 0, 0, 0.0])
    interval = ttest_1samp(ours - live, 0.0, alternative="greater").confidence_interval(0.9)
    assert compare([ours, live], [ONE, ONE], callers).least == pytest.approx(interval.low)


def test_rows_that_weigh_differently_for_each_move_the_mean_by_their_share():
    """Against the spread of many draws of the same."""
    rng = np.random.default_rng(0)
    callers = [str(i % 30) for i in range(300)]
    gains, margins = [], []
    for _ in range(400):
        values = np.repeat(rng.random(30), 10) * 0.3 + rng.random(300) * 0.7
        weights = [rng.uniform(0.2, 3.0, 300) for _ in range(2)]
        order = np.array([int(c) * 10 + i // 30 for i, c in enumerate(callers)])
        found = compare([values[order], values[order] - 0.1], weights, callers)
        gains.append(found.gain)
        margins.append(found.gain - found.least)
    assert np.mean(margins) / 1.311 == pytest.approx(np.std(gains), rel=0.1)
    assert np.mean(np.array(gains) - margins < 0.1) == pytest.approx(0.9, abs=0.05)


def test_what_is_the_same_is_no_better_and_what_is_unknown_is_nan():
    same = compare([ONE, ONE], [ONE, ONE], ["a", "b", "c"] * 2)
    assert (same.gain, same.least) == (0, 0)
    none = compare([ONE[:0], ONE[:0]], [ONE[:0], ONE[:0]], [])
    assert math.isnan(none.least)
    assert none.effective == 0
    assert math.isnan(compare([ONE[:1], ONE[:1]], [ONE[:1], ONE[:1]], ["a"]).least)

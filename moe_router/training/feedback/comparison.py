"""Two routers on the same rows: a weighted mean of each, and the least that the difference is worth.

The least is the lower end of a one-sided interval of 90 %: the difference less t standard errors. It is a
normal approximation and no bootstrap, since few callers judge: three callers drawn anew can make only ten
different samples, and their spread is too narrow, while Student's t with one degree of freedom less than
there are callers allows for how few they are. With w_i the weights of a router, v_i its values and V their
mean, a row moves the mean by w_i (v_i - V) / sum w. What one caller's rows move the difference by is summed
up first, since rows of one caller are alike.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.training.feedback.held_out import JUDGES

SURE = 0.9
"""How sure the least difference is."""
Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A weighted mean and the number of equally weighted rows that it is worth (Kish, 1965)."""

    value: float
    """nan where nothing is known"""
    effective: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate and the live router on the same rows."""

    candidate: Estimate
    live: Estimate
    least: float
    """what the candidate is better by at least; nan where too little is known"""

    @property
    def gain(self) -> float:
        """What the candidate is better by."""
        return self.candidate.value - self.live.value

    @property
    def effective(self) -> float:
        """The rows that it is worth."""
        return min(self.candidate.effective, self.live.effective)


def compare(values: Sequence[Numbers], weights: Sequence[Numbers], callers: Sequence[str]) -> Comparison:
    """Compares two routers.

    Args:
        values: of the candidate and of the live router, for each row.
        weights: likewise.
        callers: of each row. Where there are fewer than three, every row stands for itself.
    """
    candidate, live = (_estimate(v, w) for v, w in zip(values, weights, strict=True))
    moved = _moved(values[0], weights[0], candidate) - _moved(values[1], weights[1], live)
    least = candidate.value - live.value - _margin(moved, callers)
    return Comparison(candidate, live, least)


def _estimate(values: Numbers, weight: Numbers) -> Estimate:
    total = float(weight.sum()) if len(weight) else 0.0
    if total <= 0:
        return Estimate(float("nan"), 0.0)
    return Estimate(float(values @ weight) / total, total**2 / float(weight @ weight))


def _moved(values: Numbers, weight: Numbers, found: Estimate) -> Numbers:
    if not found.effective:
        return np.zeros(len(values))
    return np.asarray(weight * (values - found.value) / weight.sum(), np.float64)


def _margin(moved: Numbers, callers: Sequence[str]) -> float:
    by_caller: dict[str, float] = defaultdict(float)
    for caller, own in zip(callers, moved.tolist(), strict=True):
        by_caller[caller] += own
    parts = np.array(list(by_caller.values())) if len(by_caller) >= JUDGES else moved
    count = len(parts)
    if count < 2:
        return float("nan")
    return t_quantile(count - 1) * float(np.sqrt(count / (count - 1) * (parts @ parts)))


@lru_cache(maxsize=256)
def t_quantile(freedom: int) -> float:
    """The SURE quantile of Student's distribution of so many degrees of freedom, 1 or more.

    Own code, as SciPy has a tenth of the coordinator's image and nothing else there needs it.
    """
    low, high = 0.0, math.pi / 2  # of the arc tangent of t / sqrt(freedom)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 2 * SURE - 1 else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _within(theta: float, freedom: int) -> float:
    """The probability that |t| < tan(theta) sqrt(freedom) (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term, terms = (math.cos(theta) if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        terms += term
        term *= math.cos(theta) ** 2 * (k - 1) / k
    found = math.sin(theta) * terms
    return 2 / math.pi * (theta + found) if odd else found

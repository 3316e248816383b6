"""LinUCB with disjoint arms (Li et al., 2010, algorithm 1), to compare the router with.

    theta_a = A_a^-1 b_a;  choose argmax_a theta_a x + alpha sqrt(x A_a^-1 x)
    A_a += x x';  b_a += r x

A starts as the unit matrix. A^-1 is kept up to date by the Sherman-Morrison formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


class LinUCB:
    """One linear model of the reward for each arm."""

    def __init__(self, arms: int, dimension: int, *, alpha: float = 1.0) -> None:
        """Knows nothing; `alpha` is the width of the confidence bound."""
        self.alpha = alpha
        self._inverse = np.tile(np.eye(dimension), (arms, 1, 1))
        self._b = np.zeros((arms, dimension))
        self._theta = np.zeros((arms, dimension))

    def choose(self, x: Doubles, offered: Sequence[int] | None = None) -> int:
        """The arm of the highest upper confidence bound.

        Args:
            x: (dimension,) context.
            offered: the arms to choose from; None for all.
        """
        arms = list(range(len(self._b))) if offered is None else list(offered)
        width = np.array([np.sqrt(max(x @ self._inverse[a] @ x, 0.0)) for a in arms])
        return arms[int((self._theta[arms] @ x + self.alpha * width).argmax())]

    def update(self, arm: int, x: Doubles, reward: float) -> None:
        """Learns the reward of one arm in one context."""
        projected = self._inverse[arm] @ x
        self._inverse[arm] -= np.outer(projected, projected) / (1.0 + x @ projected)
        self._b[arm] += reward * x
        self._theta[arm] = self._inverse[arm] @ self._b[arm]

    def warm(self, contexts: Doubles, rewards: Doubles) -> None:
        """Learns at once what every arm would have given.

        Args:
            contexts: (n, dimension).
            rewards: (n, arms).
        """
        gram = np.linalg.inv(np.eye(contexts.shape[1]) + contexts.T @ contexts)
        self._inverse[:] = gram
        self._b[:] = rewards.T @ contexts
        self._theta[:] = self._b @ gram

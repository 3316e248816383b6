"""The average of an adapter's weights over the last steps: steadier than the weights of any one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

DECAY = 0.98
"""Weight of what was; so some 50 steps count."""


class WeightAverage:
    """An exponential moving average (Polyak and Juditsky 1992, https://doi.org/10.1137/0330046).

    Args:
        weights: those that are trained, by name; float32.
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter]) -> None:
        self._weights = dict(weights)
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in weights.items()}

    def take(self, step: int) -> None:
        """Counts the weights as they are after this step, the first being 1; the first steps count alike."""
        share = max(1 - DECAY, 1 / step)
        for name, average in self.values.items():
            average.lerp_(self._weights[name].detach(), share)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Puts the average in place of the weights for as long as the block runs."""
        own = {name: weights.detach().clone() for name, weights in self._weights.items()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, weights in self._weights.items():
            weights.data.copy_(values[name])

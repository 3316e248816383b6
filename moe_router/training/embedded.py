"""Encodes texts once and hands out their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from moe_router.gating.weights import Floats

Report = Callable[[str, float], None]
"""Is told what is being done and which share of it is done."""


class Encodes(Protocol):
    """An encoder, or one that remembers."""

    @property
    def hidden(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """(len(texts), hidden) float32 unit vectors."""


class Embedded:
    """Vectors by text."""

    def __init__(self, encoder: Encodes, report: Report) -> None:
        """Takes the encoder and who is told of the progress."""
        self._encoder = encoder
        self._report = report
        self._vectors: dict[str, Floats] = {}

    @property
    def hidden(self) -> int:
        """Length of a vector."""
        return self._encoder.hidden

    def __call__(self, texts: list[str]) -> Floats:
        """(len(texts), hidden) float32."""
        new = sorted(set(texts) - self._vectors.keys())
        for at in range(0, len(new), 512):
            part = new[at : at + 512]
            self._vectors.update(zip(part, self._encoder.encode(part), strict=True))
            self._report("encoding texts", (at + len(part)) / len(new))
        if not texts:
            return np.zeros((0, self.hidden), np.float32)
        return np.stack([self._vectors[text] for text in texts])

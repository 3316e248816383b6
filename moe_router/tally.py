"""Counts how large batches were, for whoever exports it; knows no metrics library."""

from __future__ import annotations

from dataclasses import dataclass, field

BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper bounds of the classes; what is larger falls into a last one without a bound."""


@dataclass(slots=True)
class SizeTally:
    """A histogram of sizes; noted from one thread, read from any."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: int = 0
    """Sum of all sizes."""

    def note(self, size: int) -> None:
        """Counts one batch."""
        index = next((i for i, bound in enumerate(BOUNDS) if size <= bound), len(BOUNDS))
        self.counts[index] += 1
        self.total += size

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and how many batches were at most as large, as Prometheus wants it."""
        found: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            running += count
            found.append((bound, float(running)))
        return found

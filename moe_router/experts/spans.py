"""Stretches of a text, of which none overlaps another."""

from __future__ import annotations

from bisect import bisect_right


class Spans:
    """Takes stretches one by one, in any order, each in logarithmic time."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def take(self, start: int, end: int) -> bool:
        """Takes text[start:end], unless it overlaps one taken before; whether it did."""
        at = bisect_right(self._starts, start)
        if (at and self._ends[at - 1] > start) or (at < len(self._starts) and self._starts[at] < end):
            return False
        self._starts.insert(at, start)
        self._ends.insert(at, end)
        return True

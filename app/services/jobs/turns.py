"""Whose claimed item is next."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping

from app.storage.job_records import ClaimedItem


class Turns:
    """Items that wait for a place, which the owner gets who has fewest under way, the longest unserved first.

    So callers share places: the slow items of one leave all other places to the rest.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[ClaimedItem]] = OrderedDict()  # the longest unserved first
        self._known: set[str] = set()
        """owners who had something when it was last looked for, and may have more"""

    def __bool__(self) -> bool:
        """Whether any item waits."""
        return bool(self._lines)

    @property
    def waiting(self) -> dict[str, int]:
        """Items that wait, by owner; none with 0."""
        return {owner: len(line) for owner, line in self._lines.items()}

    def add(self, items: Iterable[ClaimedItem]) -> None:
        """Takes all that was found when more was looked for."""
        for item in items:
            self._lines.setdefault(item.owner, deque()).append(item)
        self._known = set(self._lines)

    def overlook(self, under_way: Mapping[str, int]) -> bool:
        """Whether an owner of whom nothing waits, but who may have more, would be before all who wait."""
        fewest = min((under_way.get(owner, 0) for owner in self._lines), default=0)
        return any(under_way.get(owner, 0) < fewest for owner in self._known)

    def next(self, under_way: Mapping[str, int]) -> ClaimedItem:
        """Takes the next item; there is one.

        Args:
            under_way: how many items run, by owner.
        """
        owner = min(self._lines, key=lambda owner: under_way.get(owner, 0))  # the first of equals
        line = self._lines[owner]
        item = line.popleft()
        self._lines.move_to_end(owner)
        if not line:
            del self._lines[owner]
        return item

    def drop(self, job_id: str) -> None:
        """Forgets the items of a job."""
        kept = {o: deque(item for item in line if item.job_id != job_id) for o, line in self._lines.items()}
        self._lines = OrderedDict((owner, line) for owner, line in kept.items() if line)

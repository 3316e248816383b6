"""Which workers a request has asked."""

from __future__ import annotations

from collections.abc import Hashable

from app.services.workers.worker import Worker

MOST_ASKED = 2
"""How often a request asks one worker at most: what kills it once may kill it again."""


class Tried:
    """The workers that a request has asked, in order.

    One that has come back since (a killed process that was started again, say) counts as not asked: a long
    request may outlive the restarts of all replicas in turn. But none is asked for the third time.
    """

    def __init__(self) -> None:
        self._asked: list[tuple[Worker, int]] = []

    def add(self, worker: Worker) -> None:
        """It is asked now."""
        self._asked.append((worker, worker.comebacks))

    def __contains__(self, worker: Worker) -> bool:
        times = [comebacks for asked, comebacks in self._asked if asked is worker]
        return len(times) >= MOST_ASKED or worker.comebacks in times

    def __len__(self) -> int:
        """How often it has asked any."""
        return len(self._asked)

    @property
    def first(self) -> Worker:
        """The one that it asked first."""
        return self._asked[0][0]

    @property
    def want(self) -> tuple[Hashable, ...]:
        """The same for requests to which the same workers are left."""
        return tuple(self._asked)

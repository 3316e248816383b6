"""How many requests may be in the house, in all and of one caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from moe_router.errors import OverloadedError, TooManyRequestsError

OVERBOOKING = 2
"""A caller below its fair share is let in above the bound, up to so many times the bound."""


class Admission:
    """Counts requests from their parsing to their answer; refuses at once, and queues nothing.

    Args:
        max_requests: bound in all.
        max_per_caller: bound for one caller.
    """

    def __init__(self, max_requests: int, max_per_caller: int) -> None:
        self._max_requests = max_requests
        self._max_per_caller = max_per_caller
        self._callers: Counter[str] = Counter()
        self.requests = 0

    @contextmanager
    def request(self, caller: str) -> Iterator[None]:
        """Counts one request while the block runs.

        Raises:
            TooManyRequestsError: the caller has as many under way as one caller may.
            OverloadedError: the house is full, and the caller has its share of it.
        """
        self._check(caller)
        self._callers[caller] += 1
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]

    def _check(self, caller: str) -> None:
        own = self._callers.get(caller, 0)
        if own >= self._max_per_caller:
            raise TooManyRequestsError(f"{own} of your requests are under way; that is the limit.")
        if self.requests < self._max_requests:
            return
        share = self._max_requests // (len(self._callers) + (own == 0))
        if own >= share or self.requests >= OVERBOOKING * self._max_requests:
            raise OverloadedError(f"{self.requests} requests are under way; no more fit.")

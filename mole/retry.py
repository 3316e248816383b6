"""When a request is tried again, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""What says nothing about the request itself: a limit, a worker's fault, no worker, the deadline."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with jitter, never sooner than the service's Retry-After.

    A request is tried again only where no connection could be made or it broke off, or on 429, 502, 503 and
    504. None does anything twice: feedback replaces what the caller said before, and a job has its key.
    Where `timeout_seconds` is stated, a 504 is its end, and no attempt begins after it.
    """

    attempts: int = 4
    """in all; 1 never tries again"""
    first_pause_s: float = 0.25
    """doubled after each attempt"""
    longest_pause_s: float = 30.0
    """a service that asks for more is not waited for"""
    dice: Callable[[], float] = field(default_factory=lambda: random.random, repr=False)
    """numbers in [0, 1)"""

    def pause(self, attempt: int, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait after a failed attempt (the first is 1); None: give up.

        Half of the backoff is certain, the other half random, so that callers that failed together do
        not come back together; a Retry-After is exceeded by up to a tenth for the same reason.
        """
        if attempt >= self.attempts:
            return None
        backoff = min(self.first_pause_s * 2.0 ** min(attempt - 1, 60), self.longest_pause_s)
        pause = backoff * (0.5 + 0.5 * self.dice())
        if retry_after_s is None:
            return pause
        if retry_after_s > self.longest_pause_s:
            return None
        return max(pause, retry_after_s * (1.0 + 0.1 * self.dice()))


class Patience:
    """How long a call has taken, and whether the caller's time allows of another attempt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()

    def allows(self, pause_s: float, granted_s: float | None, status: int | None) -> bool:
        """Whether to try again after a pause; with 504 the service says itself that the time was up."""
        if granted_s is None:
            return True
        spent_s = self._clock() - self._begun
        return status != HTTPStatus.GATEWAY_TIMEOUT and spent_s + pause_s < granted_s


NEVER = Retry(attempts=1)

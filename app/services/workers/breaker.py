"""Ejects a worker that fails, and lets one request try it again when some time has passed."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_COOLDOWNS = 4.0
"""The longest ejection, in first ones; short, so that a worker that is back serves soon again."""


@dataclass(slots=True)
class Breaker:
    """Closed (calls pass), open until a time, or half open (one trial passes).

    Times are seconds of one monotonic clock, given by the caller.
    """

    threshold: int
    """Failures in a row that open it, where one is not enough."""
    first_cooldown_s: float
    """Seconds for which it opens first; each failed trial doubles them."""
    failures: int = 0
    open_until: float | None = None
    reason: str | None = None
    cooldown_s: float = 0.0
    opened_at: float = -math.inf
    closings: int = 0
    """How often it was closed again."""
    trial: bool = False
    """A trial is under way."""
    trial_at: float = math.inf
    """When the newest trial began."""
    tried_at: float = math.inf
    """When the first one did since it was last closed: a caller's may outlast several of the prober's."""

    def allows(self, now: float) -> bool:
        """Whether a call may be made: closed, or half open with no trial under way."""
        return self.open_until is None or (now >= self.open_until and not self.trial)

    def begin(self, now: float) -> bool:
        """Notes that a call begins; whether it is a trial."""
        if not self.trial and self.open_until is not None and now >= self.open_until:
            self.trial, self.trial_at, self.tried_at = True, now, min(self.tried_at, now)
        return self.trial

    def succeeded(self, began: float) -> None:
        """A real request was answered: closed again, unless it is no trial and began before it opened."""
        if self.open_until is not None and began < min(self.opened_at, self.tried_at):
            return
        self.closings += self.open_until is not None
        self.failures, self.open_until, self.reason, self.trial = 0, None, None, False
        self.tried_at = math.inf

    def failed(
        self, began: float, now: float, reason: str, *, at_once: bool, for_s: float | None = None
    ) -> bool:
        """Notes a failure; whether it opens the breaker now, for `for_s` seconds where given."""
        if began < self.opened_at:
            return False  # what was wrong then has been told, and may have been mended since
        self.failures += 1
        if self.open_until is not None and now < self.open_until:
            return False
        half_open = self.open_until is not None
        if not (at_once or half_open or self.failures >= self.threshold):
            return False
        longest_s = self.first_cooldown_s * MOST_COOLDOWNS
        self.cooldown_s = min(self.cooldown_s * 2, longest_s) if half_open else self.first_cooldown_s
        self.opened_at = now
        self.open_until = now + (self.cooldown_s if for_s is None else for_s)
        self.reason = reason
        self.trial = False
        return True

    def abandoned(self, began: float) -> None:
        """A call was cancelled and says nothing about the worker; if it was the trial, another may pass."""
        if began >= self.trial_at:
            self.trial = False

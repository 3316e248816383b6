"""A budget of retries: enough for single faults, too small for a storm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RetryBudget:
    """A token bucket that requests fill and retries empty; the first failover is always free."""

    per_request: float = 0.2
    capacity: float = 50.0
    tokens: float = 50.0

    def request(self) -> None:
        """Notes a request."""
        self.tokens = min(self.tokens + self.per_request, self.capacity)

    def allows(self, retry: int) -> bool:
        """Whether the retry of that number (1 is the first) may be made; takes its token."""
        return retry <= 1 or self.spend()

    def spend(self) -> bool:
        """Takes a token for a call beyond the request's own; False where there is none."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

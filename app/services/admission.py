"""How many requests may be in the house, in all and of one caller."""

from __future__ import annotations

from contextlib import AbstractContextManager

from moe_router.errors import OverloadedError, TooManyRequestsError

OVERBOOKING = 2
"""A caller below its fair share is let in above the bound, up to so many times the bound."""


class Admission:
    """Counts requests, or something else that they take, until their answer; refuses at once, queues nothing.

    Args:
        max_requests: bound in all.
        max_per_caller: bound for one caller.
        of: what is counted, for people.
    """

    def __init__(self, max_requests: int, max_per_caller: int, *, of: str = "requests") -> None:
        self._max_requests = max_requests
        self._max_per_caller = max_per_caller
        self._of = of
        self._callers: dict[str, int] = {}  # a Counter's += and del are Python's
        self.requests = 0

    def request(self, caller: str) -> AbstractContextManager[None]:
        """Counts one request while the block runs.

        Raises:
            TooManyRequestsError: the caller has as many under way as one caller may.
            OverloadedError: the house is full, and the caller has its share of it.
        """
        return _Place(self, caller)

    def enter(self, caller: str, amount: int = 1) -> None:
        """A request of the caller begins, or so much of something else.

        Raises:
            TooManyRequestsError, OverloadedError: as `request`.
        """
        held = self._callers.get(caller, 0)
        if held + amount > self._max_per_caller or self.requests + amount > self._max_requests:
            self._check(held, amount)
        self._callers[caller] = held + amount
        self.requests += amount

    def leave(self, caller: str, amount: int = 1) -> None:
        """It has ended."""
        self.requests -= amount
        left = self._callers[caller] - amount
        if left:
            self._callers[caller] = left
        else:
            del self._callers[caller]

    def _check(self, held: int, amount: int) -> None:
        own, total = held + amount, self.requests + amount
        if own > self._max_per_caller:
            raise TooManyRequestsError(f"{held} of your {self._of} are under way; that is the limit.")
        if total <= self._max_requests:
            return
        share = self._max_requests // (len(self._callers) + (held == 0))
        if own > share or total > OVERBOOKING * self._max_requests:
            raise OverloadedError(f"{self.requests} {self._of} are under way; no more fit.")


class _Place(AbstractContextManager[None]):
    """A block of `Admission.request`; a class, as a generator takes three times as long."""

    __slots__ = ("_admission", "_caller")

    def __init__(self, admission: Admission, caller: str) -> None:
        self._admission = admission
        self._caller = caller

    def __enter__(self) -> None:
        self._admission.enter(self._caller)

    def __exit__(self, *_error: object) -> None:
        self._admission.leave(self._caller)

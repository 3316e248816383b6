"""A bound on the time of a block, as `asyncio.timeout`, at a fraction of its cost: a request has several."""

from __future__ import annotations

import asyncio
from types import TracebackType

from app.services.alarms import Slot, alarms_of

LONG_S = 1.0
"""A longer time may be over 40 ms late, see `alarms`."""


class within:  # noqa: N801 - read as a word: `with within(seconds):`
    """Cancels the task's block after so many seconds; the block then raises TimeoutError.

    A block that is cancelled by others stays cancelled, also where its time is up as well.
    """

    __slots__ = ("_cancelling", "_expired", "_handle", "_seconds", "_slot", "_task", "was_cut")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False
        self.was_cut = False
        self._cancelling = 0
        self._task: asyncio.Task[object] | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._slot: Slot | None = None

    def __enter__(self) -> None:
        """Begins to count; at once where nothing is left."""
        loop = asyncio.get_running_loop()
        self._task = task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a bound on the time needs a task")
        self._cancelling = task.cancelling()
        if self._seconds >= LONG_S:
            self._slot = alarms_of(loop).set(self, self._seconds)
        else:
            self._handle = loop.call_later(max(self._seconds, 0.0), self.ring)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it.

        Raises:
            TimeoutError: the time was up.
        """
        self._unset()
        if self._expired and self._task is not None:
            left = self._task.uncancel()
            if left <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error

    def cut(self) -> None:
        """Ends the block as if its time were up."""
        if not self._expired:
            self.was_cut = True
            self._unset()  # it may be due in this very turn of the loop
            self.ring()

    def ring(self) -> None:
        """The time is up."""
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def _unset(self) -> None:
        if self._slot is not None:
            self._slot.discard(self)
        elif self._handle is not None:
            self._handle.cancel()

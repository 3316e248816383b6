"""Draining: on SIGTERM readiness goes off at once, requests in flight finish, then the process ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

logger = logging.getLogger(__name__)


_UNCOUNTED: AbstractContextManager[None] = nullcontext()


class Drain:
    """Counts the requests in flight and holds the server's own shutdown back until there are none."""

    def __init__(self) -> None:
        self.draining = False
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def request(self, *, counted: bool = True) -> AbstractContextManager[None]:
        """Counts one request while it runs; probes and the like are not waited for."""
        return _Counted(self) if counted else _UNCOUNTED

    def begin(self) -> None:
        """A request begins."""
        self.in_flight += 1

    def end(self) -> None:
        """It has ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    def install(self, timeout_s: float) -> None:
        """Takes SIGTERM over from the server and passes it on when the requests have finished.

        The server would close its sockets first, so that nobody could read the status `draining`.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        previous = signal.getsignal(signal.SIGTERM)

        def on_signal(number: int, frame: FrameType | None) -> None:
            if not self.draining:
                self.draining = True
                loop.call_soon_threadsafe(begin, number)
            elif callable(previous):  # asked twice: go now
                previous(number, frame)

        def begin(number: int) -> None:
            self._task = loop.create_task(finish(number))

        async def finish(number: int) -> None:
            await self.wait_idle(timeout_s)
            signal.signal(signal.SIGTERM, previous)
            if callable(previous):
                previous(number, None)
            else:
                signal.raise_signal(number)

        signal.signal(signal.SIGTERM, on_signal)

    async def wait_idle(self, timeout_s: float) -> None:
        """Returns when no request is in flight, or after the timeout in seconds."""
        logger.info("draining: %d requests in flight", self.in_flight)
        try:
            async with asyncio.timeout(timeout_s):
                while self.in_flight:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            logger.warning("%d requests are still in flight after %g s", self.in_flight, timeout_s)


class _Counted(AbstractContextManager[None]):
    """A block of `Drain.request`; a class, as a generator takes three times as long."""

    __slots__ = ("_drain",)

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def __enter__(self) -> None:
        self._drain.begin()

    def __exit__(self, *_error: object) -> None:
        self._drain.end()

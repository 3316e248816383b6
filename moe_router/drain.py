"""Draining: on SIGTERM readiness goes off at once, requests in flight finish, then the process ends."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FrameType, TracebackType

from moe_router.errors import NotReadyError

logger = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], object] | int | None

LAST_S = 2.0
"""For the server's own end, where the requests have taken all of the time."""

_UNCOUNTED: AbstractContextManager[None] = nullcontext()


class Drain:
    """Holds the server's own shutdown back until no request is in flight; ends those that take too long."""

    def __init__(self) -> None:
        self.draining = False
        self._requests: set[_Request] = set()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._handler: Handler = None
        self._previous: Handler = None

    @property
    def in_flight(self) -> int:
        """Requests that are waited for."""
        return len(self._requests)

    def request(self, *, counted: bool = True) -> AbstractContextManager[None]:
        """Counts one request while it runs; probes and the like are not waited for.

        Raises:
            NotReadyError: at the end of the block, where it took too long.
        """
        return _Request(self) if counted else _UNCOUNTED

    def begin(self, request: _Request) -> None:
        """A request begins."""
        self._requests.add(request)

    def end(self, request: _Request) -> None:
        """It has ended."""
        self._requests.discard(request)
        if not self._requests:
            self._idle.set()

    def install(self, timeout_s: float) -> None:
        """Takes SIGTERM over from the server and passes it on when the requests have finished.

        The server would close its sockets first, so that nobody could read the status `draining`. After
        `timeout_s` seconds it is told all the same, and may take no more than LAST_S itself.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()

        def begin() -> None:
            self._task = loop.create_task(self._finish(timeout_s))

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if not self.draining:
                self.draining = True
                loop.call_soon_threadsafe(begin)
            else:  # asked twice: go now
                self.uninstall()
                self._pass_on(LAST_S)

        self._handler, self._previous = on_signal, signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, on_signal)

    def uninstall(self) -> None:
        """Gives SIGTERM back, where it is still ours."""
        if self._handler is not None and signal.getsignal(signal.SIGTERM) is self._handler:
            signal.signal(signal.SIGTERM, self._previous)

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

    async def _finish(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        await self.wait_idle(timeout_s)
        for request in self._requests:
            request.cancel()
        self.uninstall()
        self._pass_on(max(end - loop.time(), LAST_S))

    def _pass_on(self, seconds: float) -> None:
        """Tells the server, which may take so many seconds."""
        _bound(self._previous, seconds)
        if callable(self._previous):
            self._previous(signal.SIGTERM, None)
        else:
            signal.raise_signal(signal.SIGTERM)


class _Request(AbstractContextManager[None]):
    """A block of `Drain.request`; a class, as a generator takes three times as long."""

    __slots__ = ("_drain", "_task")

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._drain.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drain.end(self)
        # Of a service that ends: clients who go are noticed further in.
        if self._drain.draining and self._task is not None and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise NotReadyError("The service ended before the answer.") from error

    def cancel(self) -> None:
        """Ends its work."""
        if self._task is not None:
            self._task.cancel()


def _bound(handler: object, seconds: float) -> None:
    """Bounds the server's own shutdown: left alone, it waits for ever for a client who does not read on."""
    server = getattr(handler, "__self__", None)
    config = getattr(server, "config", None)  # uvicorn's, told by its form: the core imports no server
    if config is not None and getattr(config, "timeout_graceful_shutdown", math.inf) is None:
        config.timeout_graceful_shutdown = math.ceil(seconds)

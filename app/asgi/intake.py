"""Reads a body within its limit before anything parses it, and stops the work when the client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import errors
from app.asgi.exchange import Exchange, exchange_of
from app.services.admission import Admission
from app.services.alarms import alarms_of
from moe_router.errors import MoleError, RequestError, TextTooLongError

BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
STREAMED = frozenset({("POST", "/api/v1/jobs")})
"""Read by their handlers, as the body arrives and within limits of their own."""
ANY_PATH = ""
WATCH_AFTER_S = 0.05
"""A client that goes sooner is noticed then; most requests of a fast expert are over before."""
BYTES_IN_ALL, BYTES_PER_CALLER = 256 * 2**20, 64 * 2**20
"""Of bodies that are being read or worked on, or a single longest body where that is more."""
BODY_TIMEOUT_S = 30.0
"""A client that sends its body more slowly than this holds a connection for nothing."""


class SlowBodyError(RequestError):
    """The body did not arrive in time."""

    status = 408
    slug = "request-timeout"
    title = "Request timeout"


class Intake:
    """Puts the whole body into the exchange, and watches those who have to wait for their answer.

    Args:
        app: what comes after.
        longest_body: in bytes, by the request's path; ANY_PATH's is the longest of all.
    """

    def __init__(self, app: ASGIApp, *, longest_body: Callable[[str], int]) -> None:
        self.app = app
        self.longest_body = longest_body
        self._bytes: Admission | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["method"] not in BODY_METHODS:
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        if (scope["method"], exchange.path) in STREAMED:
            await self.app(scope, receive, send)
            return
        limit = self.longest_body(exchange.path)
        if self._bytes is None:  # the settings are not known before
            most = self.longest_body(ANY_PATH)
            self._bytes = Admission(max(BYTES_IN_ALL, most), max(BYTES_PER_CALLER, most), of="bytes")
        held = _Held(self._bytes, exchange.caller)
        watch = _Watch(receive, exchange)
        try:
            try:
                body = await _read(scope, receive, limit, held)
            except MoleError as error:
                watch.end()
                held.leave()
                await errors.response(error, exchange.request_id)(scope, receive, send)
                return
            if body is not None:
                exchange.body = body
                watch.body_is_read()
                await self.app(scope, watch.receive, send)
        except asyncio.CancelledError:
            if watch.was_slow():
                slow = SlowBodyError(f"The body did not arrive within {BODY_TIMEOUT_S:g} seconds.")
                await errors.response(slow, exchange.request_id)(scope, receive, send)
            elif not watch.has_gone():
                raise
        finally:
            watch.end()
            held.leave()


class _Held:
    """What a request's body takes of the bytes that may be in the house."""

    __slots__ = ("_admission", "_caller", "_size")

    def __init__(self, admission: Admission, caller: str) -> None:
        self._admission = admission
        self._caller = caller
        self._size = 0

    def take(self, size: int) -> None:
        """Counts so many bytes more.

        Raises:
            TooManyRequestsError, OverloadedError: they do not fit.
        """
        self._admission.enter(self._caller, size)
        self._size += size

    def leave(self) -> None:
        """They are not needed any more."""
        if self._size:
            self._admission.leave(self._caller, self._size)
            self._size = 0


class _Watch:
    """Cancels the work for a client that sends its body too slowly, or goes before its answer begins.

    It begins late, as a task of its own costs a tenth of a short request, and most are over before.
    """

    __slots__ = (
        "_alarms", "_cancelling", "_exchange", "_gone", "_late", "_reading", "_receive", "_slot", "_slow",
        "_task", "_unread", "_watcher",
    )  # fmt: skip

    def __init__(self, receive: Receive, exchange: Exchange) -> None:
        self._receive = receive
        self._exchange = exchange
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a request is served by a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._reading = self._unread = True
        self._late = self._slow = self._gone = False
        self._watcher: asyncio.Task[None] | None = None
        self._alarms = alarms_of(loop)
        self._slot = self._alarms.set(self, WATCH_AFTER_S)

    def body_is_read(self) -> None:
        """From now on the client waits for its answer."""
        self._reading = False
        if self._late:
            self._slot.discard(self)
            self._slot = self._alarms.set(self, WATCH_AFTER_S)

    async def receive(self) -> Message:
        """The body, once; then the end of the connection."""
        if self._unread:
            self._unread = False
            return {"type": "http.request", "body": self._exchange.body, "more_body": False}
        await self._watching()
        return {"type": "http.disconnect"}

    def was_slow(self) -> bool:
        """Whether it is for this, and for nothing else, that the work was cancelled."""
        return self._slow and self._forgiven()

    def has_gone(self) -> bool:
        """The same of the client's end."""
        return self._gone and self._forgiven()

    def end(self) -> None:
        """The answer is sent."""
        self._slot.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()

    def ring(self) -> None:
        """The client takes longer than most; or, once more, than it may to send its body."""
        if not self._reading:
            self._watching()
        elif not self._late:
            self._late = True
            self._slot = self._alarms.set(self, BODY_TIMEOUT_S - WATCH_AFTER_S)
        else:
            self._slow = True
            self._task.cancel()

    def _watching(self) -> asyncio.Task[None]:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        return self._watcher

    async def _watch(self) -> None:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if self._exchange.status is None:
            self._gone = True
            self._task.cancel()

    def _forgiven(self) -> bool:
        return self._task.uncancel() <= self._cancelling


async def _read(scope: Scope, receive: Receive, limit: int, held: _Held) -> bytes | None:
    """The whole body; None where the client went in between.

    Raises:
        TextTooLongError: the body is longer than `limit` bytes.
        TooManyRequestsError, OverloadedError: so many bytes are in the house, of the caller or in all.
    """
    for name, value in scope["headers"]:
        if name == b"content-length":
            if value.isdigit() and int(value[:20]) > limit:
                raise TextTooLongError(f"The body is longer than {limit} bytes.")
            break
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TextTooLongError(f"The body is longer than {limit} bytes.")
        if chunk:
            held.take(len(chunk))
        if not message.get("more_body", False):
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)

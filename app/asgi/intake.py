"""Reads a body within its limit before anything parses it, and stops the work when the client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import errors
from app.asgi.exchange import Exchange, exchange_of
from app.services.admission import Admission
from app.services.within import within
from moe_router.errors import MoleError, RequestError, TextTooLongError

BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
STREAMED = frozenset({("POST", "/api/v1/jobs")})
"""Read by their handlers, as the body arrives and within limits of their own."""
ANY_PATH = ""
WATCH_AFTER_S = 0.02
"""A client that goes sooner is noticed then; most requests that no model has to compute are over before."""
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
        try:
            body = await _read(scope, receive, limit, held)
        except MoleError as error:
            held.leave()
            await errors.response(error, exchange.request_id)(scope, receive, send)
            return
        except BaseException:
            held.leave()
            raise
        try:
            if body is not None:
                exchange.body = body
                await _run_while_connected(self.app, scope, receive, send, exchange)
        finally:
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


async def _run_while_connected(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, exchange: Exchange
) -> None:
    """Runs the application; cancels it when the client disconnects before the answer begins."""
    task = asyncio.current_task()
    watch = _Watch(receive, exchange, task)
    try:
        await app(scope, watch.receive, send)
    except asyncio.CancelledError:
        if not watch.gone or task is None:
            raise
        task.uncancel()
    finally:
        watch.end()


class _Watch:
    """Notices that the client goes; begins late, as a task of its own costs a tenth of a short request."""

    def __init__(self, receive: Receive, exchange: Exchange, task: asyncio.Task[None] | None) -> None:
        self.gone = False
        self._receive = receive
        self._exchange = exchange
        self._task = task
        self._unread = True
        self._watcher: asyncio.Task[None] | None = None
        self._soon = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)

    async def receive(self) -> Message:
        """The body, once; then the end of the connection."""
        if self._unread:
            self._unread = False
            return {"type": "http.request", "body": self._exchange.body, "more_body": False}
        await self._begin()
        return {"type": "http.disconnect"}

    def end(self) -> None:
        """The answer is sent."""
        self._soon.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> asyncio.Task[None]:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        return self._watcher

    async def _watch(self) -> None:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if self._exchange.status is None and self._task is not None:
            self.gone = True
            self._task.cancel()


async def _read(scope: Scope, receive: Receive, limit: int, held: _Held) -> bytes | None:
    """The whole body; None where the client went in between.

    Raises:
        TextTooLongError: the body is longer than `limit` bytes.
        SlowBodyError: it did not arrive in time.
        TooManyRequestsError, OverloadedError: so many bytes are in the house, of the caller or in all.
    """
    too_long = TextTooLongError(f"The body is longer than {limit} bytes.")
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise too_long
    chunks: list[bytes] = []
    size = 0
    try:
        with within(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise too_long
                if chunk:
                    held.take(len(chunk))
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise SlowBodyError(f"The body did not arrive within {BODY_TIMEOUT_S:g} seconds.") from error

"""What surrounds every request: its id, its body within the limit, its end when the client goes."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from expert_worker import problems
from expert_worker.metrics import Metrics
from moe_router import logs, tracing
from moe_router.contracts import (
    HEADER_CALLER,
    HEADER_EXPERT,
    HEADER_OVERHEAD_MS,
    HEADER_REQUEST_ID,
    MAX_HEADER_BYTES,
)
from moe_router.drain import Drain
from moe_router.errors import HeadersTooLongError, MoleError, TextTooLongError

logger = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
CLIENT_GONE = 499
"""Status under which a request is counted whose client went before the answer."""
NO_EXPERT = "none"
TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})
BODY_TIMEOUT_S = 30.0
"""A client that sends its body more slowly than this holds a connection for nothing."""


@dataclass(slots=True)
class Exchange:
    """One request on its way through the service."""

    request_id: str
    caller: str = ""
    """Opaque; the coordinator says which requests share a caller."""
    started: float = field(default_factory=time.perf_counter)
    body: bytes = b""
    status: int | None = None
    expert: str = NO_EXPERT
    expert_ms: float = 0.0
    """Milliseconds that the request waited for experts."""


class Envelope:
    """Outermost middleware, in pure ASGI: it costs no task switch of its own but one watcher."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, drain: Drain, max_body_bytes: Callable[[], int]
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.drain = drain
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; nothing but a cancellation leaves this method as an exception."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = scope["mole"] = Exchange(
            _sane(scope, HEADER_REQUEST_ID) or uuid.uuid4().hex, _sane(scope, HEADER_CALLER)
        )

        logs.request_id.set(exchange.request_id)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], *_headers(exchange)]
            await send(message)

        try:
            _check_headers(scope)
            with tracing.span(scope["method"], "server", _trace(scope)) as span:
                await self._serve(scope, receive, send_with_headers, exchange)
                _describe(span, scope, exchange)
        except MoleError as error:
            if exchange.status is None:  # an answer that had begun when the service ended is broken off
                await problems.response(error, exchange.request_id)(scope, receive, send_with_headers)
        except Exception:
            logger.exception("request %s failed unexpectedly", exchange.request_id)
            if exchange.status is None:
                fault = problems.unexpected()
                await problems.response(fault, exchange.request_id)(scope, receive, send_with_headers)
        finally:
            self._count(scope, exchange)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        if scope["method"] in BODY_METHODS:
            with self.drain.request():
                await self._with_body(scope, receive, send, exchange)
        else:
            await self.app(scope, receive, send)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        try:
            body = await _read(receive, scope, self.max_body_bytes())
        except MoleError as error:
            await problems.response(error, exchange.request_id)(scope, receive, send)
            return
        if body is None:
            exchange.status = CLIENT_GONE
            return
        exchange.body = body
        await _run_while_connected(self.app, scope, receive, send, exchange)

    def _count(self, scope: Scope, exchange: Exchange) -> None:
        route = _route(scope)
        self.metrics.requests.labels(route, str(exchange.status or CLIENT_GONE)).inc()
        self.metrics.duration.labels(route).observe(time.perf_counter() - exchange.started)


async def _run_while_connected(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, exchange: Exchange
) -> None:
    """Runs the application and cancels it when the client disconnects before the answer begins."""
    task = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        message = await receive()
        while message["type"] != "http.disconnect":
            message = await receive()
        if exchange.status is None and task is not None:
            gone = True
            task.cancel()

    watcher = asyncio.create_task(watch())
    unread = True

    async def replay() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": exchange.body, "more_body": False}
        await watcher
        return {"type": "http.disconnect"}

    try:
        await app(scope, replay, send)
    except asyncio.CancelledError:
        if not gone or task is None:
            raise
        task.uncancel()
        exchange.status = CLIENT_GONE
    finally:
        watcher.cancel()


async def _read(receive: Receive, scope: Scope, limit: int) -> bytes | None:
    """The whole body; None where the client went in between.

    Raises:
        TextTooLongError: the body is longer than `limit` bytes.
        SlowBodyError: it did not arrive in time.
    """
    too_long = TextTooLongError(f"The body is longer than {limit} bytes.")
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise too_long
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise too_long
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise problems.SlowBodyError(f"The body did not arrive within {BODY_TIMEOUT_S:g} seconds.") from error


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


def _trace(scope: Scope) -> dict[str, str]:
    return {
        name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in TRACE_HEADERS
    }


def _describe(span: tracing.Span, scope: Scope, exchange: Exchange) -> None:
    span.rename(f"{scope['method']} {_route(scope)}")
    status = exchange.status or CLIENT_GONE
    span.tell(
        {
            "http.request.method": scope["method"],
            "http.route": _route(scope),
            "http.response.status_code": status,
            "mole.request_id": exchange.request_id,
            "mole.expert": exchange.expert,
        }
    )
    if status >= 500:
        span.fail(f"status {status}")


def _headers(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    elapsed_ms = (time.perf_counter() - exchange.started) * 1000
    told = {
        HEADER_REQUEST_ID: exchange.request_id,
        HEADER_OVERHEAD_MS: f"{max(elapsed_ms - exchange.expert_ms, 0.0):.3f}",
        HEADER_EXPERT: exchange.expert,
    }
    return [(name.lower().encode(), value.encode()) for name, value in told.items()]


def _check_headers(scope: Scope) -> None:
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise HeadersTooLongError(f"The header fields are longer than {MAX_HEADER_BYTES} bytes.")


def _sane(scope: Scope, header: str) -> str:
    """A header of an id's form; empty where it is missing or of another."""
    wanted = header.lower().encode()
    given = next((value for name, value in scope["headers"] if name == wanted), b"").decode("latin-1")
    return given if SANE_ID.fullmatch(given) else ""

"""The outermost layer: headers on every answer, counting, and the net under unexpected faults."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import errors
from app.asgi.exchange import Exchange, check_headers, open_exchange
from app.asgi.one_write import HeldWrites, hold_writes
from app.asgi.security_headers import security_headers
from app.services.telemetry.metrics import Metrics
from app.services.text_routes import TEXT_ROUTES
from moe_router import logs, tracing
from moe_router.contracts import HEADER_EXPERT, HEADER_HEDGED, HEADER_OVERHEAD_MS, HEADER_REQUEST_ID
from moe_router.drain import Drain
from moe_router.errors import MoleError

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Status under which a request is counted whose client went before the answer."""
_ID, _OVERHEAD, _EXPERT, _HEDGED = (
    name.lower().encode() for name in (HEADER_REQUEST_ID, HEADER_OVERHEAD_MS, HEADER_EXPERT, HEADER_HEDGED)
)


class Envelope:
    """Gives a request its id, and its answer the headers; nothing but a cancellation leaves it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, drain: Drain) -> None:
        self.app = app
        self.metrics = metrics
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = open_exchange(scope)
        logs.request_id.set(exchange.request_id)

        send_with_headers = _with_headers(scope, exchange, send)
        try:
            with (
                self.drain.request(counted=scope["method"] != "GET"),
                tracing.span(scope["method"], "server", exchange.trace) as span,
            ):
                check_headers(scope)
                await self.app(scope, receive, send_with_headers)
                if span.recording:
                    _describe(span, scope, exchange)
        except MoleError as error:
            if exchange.status is None:  # an answer that had begun when the service ended is broken off
                await errors.response(error, exchange.request_id)(scope, receive, send_with_headers)
        except Exception:
            logger.exception("request %s failed unexpectedly", exchange.request_id)
            if exchange.status is None:
                fault = errors.unexpected()
                await errors.response(fault, exchange.request_id)(scope, receive, send_with_headers)
        finally:
            status = exchange.status or CLIENT_GONE
            seconds = exchange.elapsed_ms() / 1000
            self.metrics.count_request(scope["method"], _route(scope, exchange), status, seconds)


def _with_headers(scope: Scope, exchange: Exchange, send: Send) -> Send:
    """Adds the headers, notes the status, and lets head and body leave together."""
    held: HeldWrites | None = None

    async def send_with_headers(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            given = message["headers"]
            added = security_headers(scope["method"], exchange.path, exchange.status, given)
            ours = [*_headers(exchange), *added]
            held = hold_writes(send, ours) if _is_whole(given) else None
            if held is None:
                message["headers"] = [*given, *ours]
            await send(message)
            return
        try:
            await send(message)
        finally:
            if held is not None:
                held.let_go()
                held = None

    return send_with_headers


def _is_whole(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the body's length is known: else it may come piece by piece, and take its time."""
    for name, _ in headers:  # noqa: SIM110  a generator takes three times as long
        if name == b"content-length":
            return True
    return False


def _route(scope: Scope, exchange: Exchange) -> str:
    """The route's template, never any path itself: a label must have few values.

    Requests for a text that are refused before a route is looked for count for it all the same.
    """
    refused = exchange.path if exchange.path in TEXT_ROUTES else "unmatched"
    return getattr(scope.get("route"), "path", refused)


def _describe(span: tracing.Span, scope: Scope, exchange: Exchange) -> None:
    span.rename(f"{scope['method']} {_route(scope, exchange)}")
    status = exchange.status or CLIENT_GONE
    span.tell(
        {
            "http.request.method": scope["method"],
            "http.route": _route(scope, exchange),
            "http.response.status_code": status,
            "mole.request_id": exchange.request_id,
            "mole.expert": exchange.expert,
        }
    )
    if status >= 500:
        span.fail(f"status {status}")


def _headers(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    overhead_ms = max(exchange.elapsed_ms() - exchange.worker_ms, 0.0)
    told = [
        (_ID, exchange.request_id.encode()),
        (_OVERHEAD, f"{overhead_ms:.3f}".encode()),
        (_EXPERT, exchange.expert.encode("ascii", "replace")),
    ]
    if exchange.hedged:
        told.append((_HEDGED, b"true"))
    return told

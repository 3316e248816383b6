"""Lets in who may come in: API keys, their scopes, their limits; before a body is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import errors
from app.asgi.exchange import Exchange, exchange_of
from app.services import audit
from app.services.keyring import Keyring
from app.services.text_routes import TEXT_ROUTES
from app.storage.key_records import ADMIN
from moe_router.errors import MissingScopeError, MoleError, NotReadyError

OPEN: Final = "open"
ANY: Final = "any"
"""Any valid key will do."""
PAGES = frozenset({"/", "/fleet", "/jobs", "/router", "/traffic", "/favicon.ico", "/openapi.json", "/docs"})
"""Hold nothing of anybody's: what a page shows it asks for with the visitor's key."""
PREFIXES: tuple[tuple[str, str, str], ...] = (
    ("/api/v1/health", OPEN, OPEN),
    ("/docs/", OPEN, OPEN),
    ("/assets/", OPEN, OPEN),
    ("/api/v1/jobs", "jobs", "jobs"),
    ("/api/v1/feedback", ANY, "feedback"),
    ("/api/v1/tasks", ANY, ADMIN),
    ("/api/v1/workers", ANY, ADMIN),
    ("/api/v1/stats", ANY, ADMIN),
    ("/api/v1/router", ANY, ADMIN),
    ("/v1/models", ANY, ADMIN),
    ("/api/v1/", "classify", "classify"),
    ("/v1/", "classify", "classify"),
)
"""The first that a path begins with says what is needed to read (GET, HEAD), and for everything else.

What is not listed needs any valid key.
"""
READS = frozenset({"GET", "HEAD"})
BEARER = b"bearer "
AUDITED_CHARS = 200
"""Of a path: strangers are told of, too."""


def need_of(method: str, path: str) -> str:
    """What a request needs: `open`, `any`, or a scope."""
    if method == "POST" and path in TEXT_ROUTES:  # nearly all requests
        return "classify"
    if path in PAGES:
        return OPEN
    reads = method in READS
    for prefix, read, other in PREFIXES:
        if path.startswith(prefix):
            return read if reads else other
    return ANY


class Access:
    """Puts the caller's key into the exchange, and refuses who has none.

    Args:
        app: what comes after.
        keyring: the keys; None before the process has started.
        metrics_open: whether `/metrics` needs no key.
    """

    def __init__(
        self, app: ASGIApp, *, keyring: Callable[[], Keyring | None], metrics_open: Callable[[], bool]
    ) -> None:
        self.app = app
        self.keyring = keyring
        self.metrics_open = metrics_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        path = exchange.path
        need = OPEN if path == "/metrics" and self.metrics_open() else need_of(scope["method"], path)
        try:
            if need != OPEN:
                try:
                    keyring = self.keyring()
                    if keyring is None:
                        raise NotReadyError("The coordinator is loading.")
                    if not keyring.known:
                        await keyring.wait_known()
                    if keyring.enforced:
                        _admit(keyring, scope, need, exchange)
                except MoleError as refusal:
                    await errors.response(refusal, exchange.request_id)(scope, receive, send)
                    return
            await self.app(scope, receive, send)
        finally:
            # What would change the service is told whoever asked for it, refused or not.
            if need == ADMIN or (need == "jobs" and scope["method"] != "POST" and exchange.is_admin):
                told = {"method": scope["method"], "path": path[:AUDITED_CHARS], "status": exchange.status}
                audit.record("api.called", actor=exchange.caller, request_id=exchange.request_id, **told)


def _admit(keyring: Keyring, scope: Scope, need: str, exchange: Exchange) -> None:
    key = keyring.find(_token(scope))
    exchange.caller, exchange.key = key.caller, key
    if need != ANY and not key.record.may(need):
        raise MissingScopeError(need)
    key.take_request()
    if scope["method"] == "POST" and exchange.path in TEXT_ROUTES:
        key.take_texts(1)


def _token(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            given: bytes = value
            if given[: len(BEARER)].lower() == BEARER:
                return given[len(BEARER) :].strip().decode("latin-1")
            return None
    return None

"""CORS, off unless origins are set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from moe_router.contracts import HEADER_EXPERT, HEADER_HEDGED, HEADER_OVERHEAD_MS, HEADER_REQUEST_ID

METHODS = ("GET", "POST", "DELETE")
ASKED = ("*",)
"""Clients send fields of their own, as OpenAI's X-Stainless-Lang; without cookies none can do harm."""
TOLD = (HEADER_REQUEST_ID, HEADER_OVERHEAD_MS, HEADER_EXPERT, HEADER_HEDGED, "Retry-After", "Location")


class Cors:
    """Starlette's, made when the first request comes: the settings are not known before.

    Cookies are never allowed: a key is something that a page's script sends on purpose.
    """

    def __init__(self, app: ASGIApp, *, origins: Callable[[], Sequence[str]]) -> None:
        self.app = app
        self.origins = origins
        self._serve: ASGIApp | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one request."""
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        if self._serve is None:
            self._serve = self._make()
        return self._serve(scope, receive, send)

    def _make(self) -> ASGIApp:
        origins = self.origins()
        if not origins:
            return self.app
        return CORSMiddleware(
            self.app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=ASKED,
            expose_headers=TOLD,
        )

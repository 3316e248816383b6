"""The application: FastAPI's, and a short way past its own layers for the requests that come most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.asgi.direct import Direct
from app.asgi.exchange import route_path
from app.services.runtime import Runtime


class Application(FastAPI):
    """Sends the requests of one router through our layers alone, and everything else through FastAPI's, too.

    FastAPI wraps ours into five of its own, which do nothing for an endpoint that takes the request itself.

    Args:
        runtime: what the endpoints serve.
        layers: ours, outermost first.
        outer: what stands around these for all other requests.
        router: whose endpoints take nothing but the request.
        **given: as FastAPI.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        layers: Sequence[Middleware],
        outer: Sequence[Middleware],
        router: APIRouter,
        **given: Any,
    ) -> None:
        super().__init__(**given, middleware=[*outer, *layers])
        self.runtime = self.state.runtime = runtime
        direct = Direct(router=router)
        self._routes = frozenset(direct.routes)
        short: ASGIApp = direct
        for layer in reversed(layers):
            short = layer.cls(short, *layer.args, **layer.kwargs)
        self._short = short

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, or the lifespan."""
        if scope["type"] == "http" and (scope["method"], route_path(scope)) in self._routes:
            scope["app"] = self
            await self._short(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

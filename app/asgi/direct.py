"""The short way to the few endpoints that take nearly all requests.

FastAPI documents these routes and would serve them as well; its matching, dependency solving and exit stacks
cost as much as all that the coordinator itself does for a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api import errors
from app.asgi.exchange import exchange_of
from moe_router.errors import MoleError

Endpoint = Callable[[Request], Awaitable[Response]]


class Direct:
    """Calls the endpoints of a router that take nothing but the request; other requests do not come here."""

    def __init__(self, *, router: APIRouter) -> None:
        self.routes = dict(_simple(router))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        exchange = exchange_of(scope)
        scope["route"] = route = self.routes[scope["method"], exchange.path]
        try:
            response = await route.endpoint(Request(scope, receive))
        except MoleError as error:
            response = errors.response(error, exchange.request_id)
        await response(scope, receive, send)


def _simple(router: APIRouter) -> Iterable[tuple[tuple[str, str], APIRoute]]:
    for route in router.routes:
        if isinstance(route, APIRoute) and "{" not in route.path:
            for method in route.methods or ():
                yield (method, route.path), route

"""Errors in OpenAI's form, whichever layer of the service raised them."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import MEDIA_TYPE
from app.asgi.exchange import route_path
from moe_router.errors import RequestError

PREFIX = "/v1/"
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class UnknownModelError(RequestError):
    """The model is none of `/v1/models`."""

    status = 404
    slug = "model-not-found"
    title = "Model not found"


class OpenAIErrors:
    """Turns every problem document under `/v1/` into `{"error": …}`; status and headers stay.

    It stands outside of all other layers, so that a body that is too long or a key that is missing is
    told in the form that these clients read, too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or not _below_prefix(scope):
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def translate(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _send_error(start, body, send)

        await self.app(scope, receive, translate)


def error_of(problem: dict[str, Any]) -> dict[str, Any]:
    """The error that a problem is to OpenAI's clients."""
    status = problem["status"]
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    mistakes = problem.get("errors") or [{}]
    return {
        "error": {
            "message": problem["detail"],
            "type": kind,
            "param": mistakes[0].get("member"),
            "code": problem["type"].rpartition("/")[2].replace("-", "_"),
        }
    }


def _below_prefix(scope: Scope) -> bool:
    return route_path(scope).startswith(PREFIX)


def _is_problem(start: Message) -> bool:
    kind = next((value for name, value in start["headers"] if name.lower() == b"content-type"), b"")
    return bool(kind.startswith(MEDIA_TYPE.encode()))


async def _send_error(start: Message, body: bytes, send: Send) -> None:
    told = orjson.dumps(error_of(orjson.loads(body)))
    kept = [pair for pair in start["headers"] if pair[0].lower() not in (b"content-type", b"content-length")]
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
    await send({**start, "headers": [*kept, *own]})
    await send({"type": "http.response.body", "body": told})

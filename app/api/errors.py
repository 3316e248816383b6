"""Problem details (RFC 9457): every error of the service as one JSON form, by one rule."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.asgi.exchange import exchange_of
from moe_router.errors import MissingScopeError, MoleError, RequestError, UnauthorizedError

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="mole"'
"""Of WWW-Authenticate, see RFC 6750."""


class MediaTypeError(RequestError):
    """The body is not declared as JSON."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class UnexpectedError(MoleError):
    """A fault of ours; the log has the trace under the request id."""


def unexpected() -> UnexpectedError:
    """What a caller is told of a fault of ours: nothing but where to look."""
    return UnexpectedError("The fault is ours; the log has it under the request id.")


def document(error: MoleError, request_id: str) -> dict[str, Any]:
    """The problem document of an error.

    `type` is a relative reference, stable from release to release.
    """
    return {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "request_id": request_id,
        **error.extensions,
    }


def response(error: MoleError, request_id: str) -> Response:
    """The whole response to an error."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = CHALLENGE + (', error="invalid_token"' if error.key_given else "")
    elif isinstance(error, MissingScopeError):
        headers["WWW-Authenticate"] = f'{CHALLENGE}, error="insufficient_scope", scope="{error.scope}"'
    body = orjson.dumps(document(error, request_id))
    return Response(body, error.status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes the application answer every error as a problem."""
    app.add_exception_handler(MoleError, _on_mole_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_mole_error(request: Request, error: Exception) -> Response:
    return response(cast(MoleError, error), exchange_of(request.scope).request_id)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """The framework's own: no such path, no such method."""
    known = cast(HTTPException, error)
    phrase = HTTPStatus(known.status_code).phrase
    body = {
        "type": f"/problems/{phrase.lower().replace(' ', '-')}",
        "title": phrase,
        "status": known.status_code,
        "detail": known.detail,
        "request_id": exchange_of(request.scope).request_id,
    }
    headers = dict(known.headers or {})
    if known.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        headers.setdefault("Retry-After", "1")
    return Response(orjson.dumps(body), known.status_code, headers, media_type=MEDIA_TYPE)


async def _on_validation_error(request: Request, _error: Exception) -> Response:
    return response(RequestError("A parameter is invalid."), exchange_of(request.scope).request_id)

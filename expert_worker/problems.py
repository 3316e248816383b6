"""Problem details (RFC 9457): every error of the service as one JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from starlette.responses import Response

from moe_router.errors import MoleError, RequestError

MEDIA_TYPE = "application/problem+json"


class SlowBodyError(RequestError):
    """The body did not arrive in time."""

    status = 408
    slug = "request-timeout"
    title = "Request timeout"


class UnauthorizedError(RequestError):
    """The bearer token is missing or wrong."""

    status = 401
    slug = "unauthorized"
    title = "Unauthorized"


class MediaTypeError(RequestError):
    """The body is not declared as JSON."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class UnexpectedError(MoleError):
    """A fault of ours; the log has the trace under the request id."""

    slug: ClassVar[str] = "internal-error"


def unexpected() -> UnexpectedError:
    """What a caller is told of a fault of ours: nothing but where to look."""
    return UnexpectedError("The fault is ours; the log has it under the request id.")


def document(error: MoleError, request_id: str) -> dict[str, Any]:
    """The problem document of an error."""
    return {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "request_id": request_id,
        **error.extensions,
    }


def headers(error: MoleError) -> dict[str, str]:
    """The headers that go with an error."""
    found = {}
    if error.retry_after_s is not None:
        found["Retry-After"] = str(error.retry_after_s)
    if error.status == HTTPStatus.UNAUTHORIZED:
        found["WWW-Authenticate"] = "Bearer"
    return found


def response(error: MoleError, request_id: str) -> Response:
    """The whole response to an error."""
    return Response(
        orjson.dumps(document(error, request_id)), error.status, headers(error), media_type=MEDIA_TYPE
    )


def http_response(status: int, detail: str, extra: Mapping[str, str] | None, request_id: str) -> Response:
    """The response to an error of the framework, such as 404 and 405."""
    phrase = HTTPStatus(status).phrase
    body = {
        "type": f"/problems/{phrase.lower().replace(' ', '-')}",
        "title": phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    return Response(orjson.dumps(body), status, dict(extra or {}), media_type=MEDIA_TYPE)

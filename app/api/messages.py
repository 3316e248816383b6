"""Bodies in and out: JSON to models and back, without the framework's own round trips."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.errors import MediaTypeError
from app.asgi.exchange import exchange_of
from app.services.runtime import Runtime
from moe_router.invalid_body import InvalidBodyError
from moe_router.media_type import JSON, MEND, is_json, media_type

if TYPE_CHECKING:
    from app.asgi.application import Application

ModelT = TypeVar("ModelT", bound=BaseModel)
_JSON = JSON.encode()


def runtime_of(request: Request) -> Runtime:
    """The runtime that this application serves."""
    application: Application = request.scope["app"]
    return application.runtime


def declared_type(request: Request) -> str:
    """What the body is declared as, without parameters; empty where nothing is said."""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            return media_type(str(value, "latin-1"))
    return ""


def parse(model: type[ModelT], request: Request) -> ModelT:
    """The request's body as a model.

    Raises:
        MediaTypeError: it is not declared as JSON.
        InvalidBodyError: it is no JSON (nested too deeply, lone surrogates and NaN included), or
            does not fit the schema.
    """
    if not is_json(declared_type(request)):
        raise MediaTypeError(f"The body must be JSON and say so: {MEND}.")
    try:
        found: ModelT = model.__pydantic_validator__.validate_json(exchange_of(request.scope).body)
        return found
    except ValidationError as error:
        raise InvalidBodyError(error) from error


class JsonResponse(Response):
    """JSON that is written already, and what HTTP needs to be told of it; made for each request."""

    media_type = JSON

    def __init__(self, body: bytes, status: int) -> None:
        # Not the general one, which encodes, guesses and looks through headers that it is not given.
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", _JSON),
        ]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Sends it."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


def to_json(members: Mapping[str, object]) -> bytes:
    """Writes what our own code has put together, see `moe_router.members`; models may be among it."""
    # For the type checker numpy's float64 is a float.
    return orjson.dumps(members, default=_fragment, option=orjson.OPT_SERIALIZE_NUMPY)


def _fragment(model: BaseModel) -> orjson.Fragment:
    return orjson.Fragment(model.__pydantic_serializer__.to_json(model))


def written(members: Mapping[str, object]) -> Response:
    """The same as the response to a request that was served."""
    return JsonResponse(to_json(members), HTTPStatus.OK)


def answer(body: BaseModel, status: int = HTTPStatus.OK) -> Response:
    """A model as the response, by pydantic's own serialiser."""
    return JsonResponse(body.__pydantic_serializer__.to_json(body), status)

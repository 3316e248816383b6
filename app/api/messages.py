"""Bodies in and out: JSON to models and back, without the framework's own round trips."""

from __future__ import annotations

from http import HTTPStatus
from typing import TypeVar, cast

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.api.errors import MediaTypeError
from app.asgi.exchange import exchange_of
from app.services.runtime import Runtime
from moe_router.invalid_body import InvalidBodyError
from moe_router.media_type import MEND, is_json, media_type

ModelT = TypeVar("ModelT", bound=BaseModel)


def runtime_of(request: Request) -> Runtime:
    """The runtime that this application serves."""
    return cast(Runtime, request.app.state.runtime)


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


def answer(body: BaseModel, status: int = HTTPStatus.OK) -> Response:
    """A model as the response, by pydantic's own serialiser, which is as fast as orjson."""
    return Response(body.__pydantic_serializer__.to_json(body), status, media_type="application/json")

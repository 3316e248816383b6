"""What a request must satisfy before it is served: token, form, limits, time left."""

from __future__ import annotations

import hmac
import time
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from expert_worker.problems import MediaTypeError, UnauthorizedError
from expert_worker.settings import Settings
from moe_router.contracts import HEADER_TIMEOUT_MS, ExpertRequest
from moe_router.errors import RequestError, TextTooLongError
from moe_router.invalid_body import InvalidBodyError
from moe_router.media_type import MEND, is_json, media_type

ModelT = TypeVar("ModelT", bound=BaseModel)
MAX_TIMEOUT_DIGITS = 9


def check_token(request: Request, settings: Settings) -> None:
    """Compares the bearer token in constant time.

    Raises:
        UnauthorizedError: it is missing or wrong.
    """
    if settings.token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    wanted = settings.token.get_secret_value().encode()
    right = hmac.compare_digest(given.strip().encode("latin-1"), wanted)
    if scheme.lower() != "bearer" or not right:
        raise UnauthorizedError("This worker takes requests that carry its bearer token only.")


def deadline_of(request: Request, settings: Settings) -> float:
    """When the answer must be there, in seconds of time.monotonic().

    Raises:
        RequestError: the header holds no positive whole number.
    """
    left_s = settings.request_timeout_s
    given = request.headers.get(HEADER_TIMEOUT_MS)
    if given is not None:
        if not (given.isascii() and given.isdigit() and len(given) <= MAX_TIMEOUT_DIGITS):
            raise RequestError(f"{HEADER_TIMEOUT_MS}: expected a whole number of milliseconds.")
        left_s = min(left_s, int(given) / 1000)
    return time.monotonic() + left_s


def parse(model: type[ModelT], request: Request, body: bytes) -> ModelT:
    """The body as a model.

    Raises:
        MediaTypeError: it is not declared as JSON: so a page that someone visits cannot send it.
        InvalidBodyError: it is no JSON or does not fit.
    """
    if not is_json(media_type(request.headers.get("content-type", ""))):
        raise MediaTypeError(f"The body must be JSON and say so: {MEND}.")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise InvalidBodyError(error) from error


def check_limits(asked: ExpertRequest, settings: Settings) -> None:
    """Refuses what is empty or too long, and U+0000, which no tokenizer expects.

    Raises:
        RequestError: a member is empty or holds U+0000.
        TextTooLongError: a member passes its limit.
    """
    if not asked.text.strip():
        raise RequestError("text: there is no text in it.")
    fields = asked.fields or {}
    for name, value, limit in (
        ("text", asked.text, settings.max_text_chars),
        ("description", asked.description or "", settings.max_description_chars),
        ("fields", "".join(fields.values()), settings.max_text_chars),
    ):
        if len(value) > limit:
            raise TextTooLongError(f"{name}: {len(value)} characters; the limit is {limit}.")
        if "\0" in value:
            raise RequestError(f"{name}: holds U+0000, which is no text.")

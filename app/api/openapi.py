"""Parts of the OpenAPI document: every status that can be answered, with an example."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from types import UnionType
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.errors import MEDIA_TYPE
from app.asgi.access import OPEN, need_of
from app.facade.schemas import ChatRequest, ClassifyInputs
from app.services.ports import TIME_IS_UP
from app.services.router_report import PromoteRequest, RollbackRequest
from moe_router.contracts import BatchRequest, ClassifyRequest, FeedbackRequest, JobRequest, Problem

READ_STATUSES = (431, 500, 503)
ROUTE_STATUSES = (400, 408, 413, 415, 429, 431, 500, 503, 504)
CLASSIFY_STATUSES = (400, 408, 413, 415, 422, 429, 431, 500, 502, 503, 504)
BATCH_STATUSES = (400, 408, 413, 415, 429, 431, 500, 503)
FEEDBACK_STATUSES = (400, 404, 408, 413, 415, 429, 431, 500, 503)
JOB_SUBMIT_STATUSES = (400, 408, 409, 413, 415, 429, 431, 500, 503)
JOB_READ_STATUSES = (404, 431, 500, 503)
JOB_CANCEL_STATUSES = (404, 408, 413, 429, 431, 500, 503)
KEY_STATUSES = (401, 403, 429, 503)
"""What any operation that asks for a key may answer."""
SCHEME = "ApiKey"
ROUTER_CHANGE_STATUSES = (400, 404, 408, 409, 413, 415, 429, 431, 500, 503)
BODIES: tuple[type[BaseModel], ...] = (
    ClassifyRequest, BatchRequest, JobRequest, FeedbackRequest, PromoteRequest, RollbackRequest,
    ChatRequest, ClassifyInputs, Problem,
)  # fmt: skip
_REF = "#/components/schemas/{model}"

_EXAMPLES: dict[int, tuple[str, str, str]] = {
    400: ("unknown-task", "Unknown task", "There is no task 'finance/tea_leaves'. Known tasks: …"),
    401: ("unauthorized", "Unauthorized", "An API key is needed: send it as `Authorization: Bearer …`."),
    403: ("missing-scope", "Missing scope", "Your API key lacks the scope 'jobs'."),
    404: ("unknown-request", "Unknown request", "No request 5f0c was answered by /classify, …"),
    408: ("request-timeout", "Request timeout", "The body did not arrive within 30 seconds."),
    409: ("idempotency-conflict", "Idempotency key used before", "Idempotency-Key: was used …"),
    413: ("content-too-large", "Content too large", "text: 60000 characters; the limit is 50000."),
    415: (
        "unsupported-media-type",
        "Unsupported media type",
        "The body must be JSON and say so: with curl, …",
    ),
    422: ("abstained", "No expert fits this request", "Nothing on offer fits what is asked."),
    429: ("too-many-requests", "Too many requests", "512 of your requests are under way; that is the limit."),
    431: ("request-header-fields-too-large", "Request header fields too large", "The limit is 32768 bytes."),
    500: ("internal-error", "Internal error", "The fault is ours; the log has it under the request id."),
    502: ("bad-worker-answer", "Invalid answer from a worker", "worker-0 answered with status 500."),
    503: ("no-worker", "No worker can be reached", "No worker that holds llama-2-7b-hf can be reached now."),
    504: ("deadline-exceeded", "Deadline exceeded", TIME_IS_UP),
}


def answers(
    model: type[BaseModel] | UnionType,
    statuses: Iterable[int],
    example: dict[str, Any] | None = None,
    *,
    success: int = HTTPStatus.OK,
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation: its success and its problems."""
    found: dict[int | str, dict[str, Any]] = {success: {"model": model}}
    if example is not None:
        found[success]["content"] = {"application/json": {"example": example}}
    return found | {status: problem(status) for status in statuses}


def problem(status: int) -> dict[str, Any]:
    """The response to one kind of error."""
    slug, title, detail = _EXAMPLES[status]
    example = {
        "type": f"/problems/{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": "5f0c1f6b0d2a4b61a3a8d8a2f6c7e901",
    }
    schema = {"$ref": _REF.format(model=Problem.__name__)}
    found: dict[str, Any] = {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }
    if status == 429 or status >= 500:
        seconds = {"schema": {"type": "integer"}, "description": "Seconds until a retry makes sense."}
        found["headers"] = {"Retry-After": seconds}
    elif status in (401, 403):
        told = {"schema": {"type": "string"}, "description": "`Bearer`, and what is wrong (RFC 6750)."}
        found["headers"] = {"WWW-Authenticate": told}
    return found


def body(model: type[BaseModel]) -> dict[str, Any]:
    """The `requestBody` of an operation that parses its body itself."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _guard(document: dict[str, Any]) -> None:
    """Declares the API key, and what its absence is answered with, wherever one may be asked for."""
    document["components"]["securitySchemes"] = {
        SCHEME: {"type": "http", "scheme": "bearer", "description": "An API key, from `mole keys create`."}
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if need_of(method.upper(), path) == OPEN:
                continue
            # Or none, as long as no key exists.
            operation["security"] = [{SCHEME: []}, {}]
            for status in KEY_STATUSES:
                operation["responses"].setdefault(str(status), problem(status))


def install(app: FastAPI) -> None:
    """Adds the schemas of the bodies to the document, which FastAPI cannot see."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, schemas = models_json_schema([(model, "validation") for model in BODIES], ref_template=_REF)
            # An item is parsed by itself, so that one that is wrong spoils no other: the model says any JSON.
            for model in (BatchRequest, JobRequest):
                items = schemas["$defs"][model.__name__]["properties"]["items"]
                items["items"] = {"$ref": _REF.format(model=ClassifyRequest.__name__)}
            made.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            _guard(made)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]

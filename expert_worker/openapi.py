"""Parts of the OpenAPI document: every status that can be answered, with an example."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from expert_worker.problems import MEDIA_TYPE
from moe_router.contracts import ExpertBatchRequest, ExpertRequest, Problem

CLASSIFY_STATUSES = (400, 401, 408, 413, 415, 431, 500, 502, 503, 504)
BODIES: tuple[type[BaseModel], ...] = (ExpertRequest, ExpertBatchRequest, Problem)
_REF = "#/components/schemas/{model}"

_EXAMPLES: dict[int, tuple[str, str, str]] = {
    400: ("invalid-request", "Invalid request", "text: Field required"),
    401: ("unauthorized", "Unauthorized", "This worker takes requests that carry its bearer token only."),
    408: ("request-timeout", "Request timeout", "The body did not arrive within 30 seconds."),
    413: ("content-too-large", "Content too large", "text: 60000 characters; the limit is 50000."),
    415: (
        "unsupported-media-type",
        "Unsupported media type",
        "The body must be JSON and say so: with curl, …",
    ),
    431: ("request-header-fields-too-large", "Request header fields too large", "The limit is 32768 bytes."),
    500: ("internal-error", "Internal error", "The fault is ours; the log has it under the request id."),
    502: ("bad-worker-answer", "Invalid answer from a worker", "The engine answered without probabilities."),
    503: ("overloaded", "Overloaded", "512 requests wait already."),
    504: ("deadline-exceeded", "Deadline exceeded", "The time that the caller gave is up."),
}


def answers(
    model: type[BaseModel], statuses: Iterable[int], sample: dict[str, Any]
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation: its 200 and its problems."""
    content = {"application/json": {"example": sample}}
    found: dict[int | str, dict[str, Any]] = {200: {"model": model, "content": content}}
    for status in statuses:
        slug, title, detail = _EXAMPLES[status]
        example = {"type": f"/problems/{slug}", "title": title, "status": status, "detail": detail}
        schema = {"$ref": _REF.format(model=Problem.__name__)}
        found[status] = {
            "description": title,
            "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
        }
        if status >= 500:
            text = {"type": "string"}
            found[status]["headers"] = {"Retry-After": {"schema": text, "description": "Seconds."}}
    return found


def body(model: type[BaseModel]) -> dict[str, Any]:
    """The `requestBody` of an operation that parses its body itself."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def install(app: FastAPI) -> None:
    """Adds the schemas of the bodies to the document, which FastAPI cannot see."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, schemas = models_json_schema([(model, "validation") for model in BODIES], ref_template=_REF)
            # An item is parsed by itself, so that one that is wrong spoils no other: the model says any JSON.
            items = schemas["$defs"][ExpertBatchRequest.__name__]["properties"]["items"]
            items["items"] = {"$ref": _REF.format(model=ExpertRequest.__name__)}
            made.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]

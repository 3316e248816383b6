"""What callers say about the answers that they got."""

from __future__ import annotations

from asyncio import sleep
from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api import examples, openapi
from app.api.messages import answer, parse, runtime_of
from app.asgi.exchange import exchange_of
from app.services import feedback
from app.storage.recorder import WRITTEN_WITHIN_S
from moe_router.contracts import FeedbackAnswer, FeedbackRequest
from moe_router.errors import UnknownRequestError

router = APIRouter(prefix="/api/v1", tags=["feedback"])


@router.post(
    "/feedback",
    summary="Judge an answer",
    status_code=HTTPStatus.ACCEPTED,
    responses=openapi.answers(
        FeedbackAnswer, openapi.FEEDBACK_STATUSES, examples.FEEDBACK, success=HTTPStatus.ACCEPTED
    ),
    openapi_extra=openapi.body(FeedbackRequest),
)
async def give_feedback(request: Request) -> Response:
    """Stores, before it answers, what was right; the router learns from it.

    Feedback of the same caller about the same request replaces what was there.
    """
    runtime = runtime_of(request)
    registry, storage = runtime.registry, runtime.storage
    exchange = exchange_of(request.scope)
    caller = exchange.caller
    everybodys = exchange.key is None or exchange.is_admin
    with runtime.admission.request(caller):
        asked = parse(FeedbackRequest, request)

        async def store() -> FeedbackAnswer:
            async with runtime.feedback_gate.place(caller):
                return await feedback.store(
                    asked, caller, everybodys=everybodys, registry=registry, storage=storage
                )

        try:
            stored = await store()
        except UnknownRequestError:
            # Another process of this service may have answered it. Whoever waits holds up nobody else.
            await sleep(WRITTEN_WITHIN_S)
            stored = await store()
    return answer(stored, HTTPStatus.ACCEPTED)

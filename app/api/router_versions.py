"""The router's versions: what there is, what feedback says, what is live."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api import examples, openapi
from app.api.messages import answer, parse, runtime_of
from app.services import router_report
from app.services.router_report import (
    LiveAnswer,
    PromoteRequest,
    RollbackRequest,
    RouterFeedbackAnswer,
    RouterVersionsAnswer,
)

router = APIRouter(prefix="/api/v1/router", tags=["router"])


@router.get(
    "/versions",
    summary="The router's versions",
    responses=openapi.answers(RouterVersionsAnswer, openapi.READ_STATUSES, examples.ROUTER_VERSIONS),
)
async def versions(request: Request) -> Response:
    """The newest 100 versions learned from feedback, newest first, and which one this process uses."""
    runtime = runtime_of(request)
    found = await runtime.storage.router_versions.list()
    sync = runtime.router_sync
    return answer(
        RouterVersionsAnswer(
            in_force=sync.version, refused=sync.refused, versions=[router_report.told(info) for info in found]
        )
    )


@router.get(
    "/feedback",
    summary="What feedback says about the router",
    responses=openapi.answers(RouterFeedbackAnswer, openapi.READ_STATUSES, examples.ROUTER_FEEDBACK),
)
async def feedback(request: Request) -> Response:
    """Counts and accuracies by version, and how far confidences can be trusted; of the newest 2,000 rows."""
    runtime = runtime_of(request)
    return answer(await runtime.feedback_reports.answer(runtime.storage.judged))


@router.post(
    "/promote",
    summary="Let a version go live",
    responses=openapi.answers(LiveAnswer, openapi.ROUTER_CHANGE_STATUSES, {"live": 3}),
    openapi_extra=openapi.body(PromoteRequest),
)
async def promote(request: Request) -> Response:
    """Makes a version the live one, whatever the judges said of it; the one before retires."""
    storage = runtime_of(request).storage
    asked = parse(PromoteRequest, request)
    made = await storage.router_versions.promote(asked.version, at=storage.clock())
    return answer(LiveAnswer(live=made.id))


@router.post(
    "/rollback",
    summary="Take the live version back",
    responses=openapi.answers(LiveAnswer, openapi.ROUTER_CHANGE_STATUSES, {"live": None}),
    openapi_extra=openapi.body(RollbackRequest),
)
async def rollback(request: Request) -> Response:
    """The version live before it is live again, else the shipped weights; the one taken back is rejected."""
    storage = runtime_of(request).storage
    asked = parse(RollbackRequest, request)
    back = await storage.router_versions.rollback(expected=asked.version)
    return answer(LiveAnswer(live=back.id if back is not None else None))

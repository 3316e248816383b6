"""Whether the process lives, and whether it takes requests."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api import examples, openapi
from app.api.messages import answer, runtime_of
from moe_router.contracts import CoordinatorHealth

router = APIRouter(prefix="/api/v1/health", tags=["health"])


STATE = openapi.answers(CoordinatorHealth, (431, 500), examples.HEALTH)


@router.get("", summary="State of the coordinator", responses=STATE)
@router.get("/live", summary="Whether it answers", responses=STATE)
async def live(request: Request) -> Response:
    """200 as long as the event loop turns; the body says how it is."""
    return answer(runtime_of(request).health())


@router.get(
    "/ready",
    summary="Whether it takes requests",
    responses={
        **STATE,
        503: {"model": CoordinatorHealth, "description": "Loading, draining or failed."},
    },
)
async def ready(request: Request) -> Response:
    """200 when gating is loaded and the mapping is valid, even while every worker is down."""
    body = runtime_of(request).health()
    if body.status == "ready":
        return answer(body)
    refusal = answer(body, HTTPStatus.SERVICE_UNAVAILABLE)
    refusal.headers["Retry-After"] = "2"
    return refusal

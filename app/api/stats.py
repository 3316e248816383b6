"""Counters."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from app.api import examples, openapi
from app.api.messages import answer, runtime_of
from app.services.telemetry.stats import StatsAnswer
from app.services.telemetry.traffic import TrafficAnswer

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get("/stats", summary="Counters", responses=openapi.answers(StatsAnswer, (431, 500)))
async def stats(request: Request) -> Response:
    """What this process did since it started."""
    return answer(runtime_of(request).stats.answer())


@router.get(
    "/stats/traffic",
    summary="The last hour",
    responses=openapi.answers(TrafficAnswer, (431, 500), examples.TRAFFIC),
)
async def traffic(request: Request) -> Response:
    """Requests, errors, latency, languages and tasks of the last hour, in buckets of ten seconds.

    Each process counts for itself: with several of them behind one port, `process` tells which one answered.
    """
    return answer(runtime_of(request).stats.traffic.answer())


async def metrics(request: Request) -> Response:
    """What Prometheus scrapes."""
    runtime = runtime_of(request)
    return Response(runtime.render_metrics(), media_type=CONTENT_TYPE_LATEST)

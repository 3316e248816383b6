"""Who serves, and how healthy they are."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api import examples, openapi
from app.api.messages import answer, runtime_of
from moe_router.contracts import WorkersAnswer

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get(
    "/workers",
    summary="All workers",
    responses=openapi.answers(WorkersAnswer, openapi.READ_STATUSES, examples.WORKERS),
)
async def workers(request: Request) -> Response:
    """State, reason and load of every worker, and whether the last edit of the files was refused."""
    runtime = runtime_of(request)
    return answer(WorkersAnswer(workers=runtime.experts.workers(), mapping=runtime.mapping_info()))

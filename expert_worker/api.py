"""The worker's HTTP API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, cast
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, JsonValue, ValidationError
from starlette.responses import Response

from expert_worker import examples, intake, openapi, problems
from expert_worker.envelope import Exchange
from expert_worker.service import Service
from moe_router.contracts import (
    BatchItemError,
    ExpertAnswer,
    ExpertBatchAnswer,
    ExpertBatchRequest,
    ExpertRequest,
    ExpertTasksAnswer,
    Problem,
    WorkerHealth,
)
from moe_router.errors import DeadlineError, MoleError
from moe_router.invalid_body import InvalidBodyError

logger = logging.getLogger(__name__)


def service_of(request: Request) -> Service:
    """The service that this application runs."""
    return cast(Service, request.app.state.service)


ServiceDep = Annotated[Service, Depends(service_of)]

experts = APIRouter(prefix="/api/v1/expert", tags=["experts"])
health = APIRouter(prefix="/api/v1/health", tags=["health"])


@experts.post(
    "/classify",
    summary="Classify one text with one expert",
    responses=openapi.answers(ExpertAnswer, openapi.CLASSIFY_STATUSES, examples.CLASSIFY),
    openapi_extra=openapi.body(ExpertRequest),
)
async def classify(request: Request) -> Response:
    """Scores the task's label set, or finds the entities, with the adapter."""
    service, exchange = service_of(request), _exchange(request)
    intake.check_token(request, service.settings)
    deadline = intake.deadline_of(request, service.settings)
    asked = intake.parse(ExpertRequest, request, exchange.body)
    with _timed(exchange):
        found = await _answer(
            service, asked, asked.request_id or exchange.request_id, deadline, exchange.caller
        )
    exchange.expert = quote(f"{asked.task_key}@{found.adapter_name or found.model_key}", safe="/@:")
    return _json(found)


@experts.post(
    "/classify/batch",
    summary="Classify up to 100 texts",
    responses=openapi.answers(ExpertBatchAnswer, openapi.CLASSIFY_STATUSES, examples.BATCH),
    openapi_extra=openapi.body(ExpertBatchRequest),
)
async def classify_batch(request: Request) -> Response:
    """Runs all items at once; each is answered or refused by itself, in order."""
    service, exchange = service_of(request), _exchange(request)
    intake.check_token(request, service.settings)
    deadline = intake.deadline_of(request, service.settings)
    batch = intake.parse(ExpertBatchRequest, request, exchange.body)
    _ = service.pool  # a worker that is not ready refuses the batch as a whole
    with _timed(exchange):
        results = await asyncio.gather(
            *(
                _item(service, item, f"{exchange.request_id[:120]}.{index}", deadline, exchange.caller)
                for index, item in enumerate(batch.items)
            )
        )
    return _json(ExpertBatchAnswer(results=list(results)))


@experts.get(
    "/tasks",
    summary="What this worker serves",
    responses=openapi.answers(ExpertTasksAnswer, (401, 431, 500), examples.TASKS),
)
async def tasks(request: Request) -> Response:
    """The tasks that use this worker's model, with their labels and adapters."""
    service = service_of(request)
    intake.check_token(request, service.settings)
    return _json(
        ExpertTasksAnswer(
            worker_id=service.settings.worker_id,
            model_key=service.settings.model_key,
            tasks=service.served(),
        )
    )


STATE = openapi.answers(WorkerHealth, (431, 500), examples.HEALTH)


@health.get("", summary="State of the worker", responses=STATE)
@health.get("/live", summary="Whether the process answers", responses=STATE)
async def live(service: ServiceDep) -> Response:
    """200 as long as the event loop turns; the body says how far the worker is."""
    return _json(service.health())


@health.get(
    "/ready",
    summary="Whether the worker takes requests",
    responses={
        **STATE,
        503: {"model": WorkerHealth, "description": "Loading, draining or failed; Retry-After says when."},
    },
)
async def ready(service: ServiceDep) -> Response:
    """200 only after the model is loaded and a warm-up request has run."""
    body = service.health()
    if body.status == "ready":
        return _json(body)
    answer = _json(body, HTTPStatus.SERVICE_UNAVAILABLE)
    answer.headers["Retry-After"] = "2"
    return answer


async def _item(
    service: Service, item: JsonValue, request_id: str, deadline: float, caller: str
) -> ExpertAnswer | BatchItemError:
    try:
        try:
            asked = ExpertRequest.model_validate(item)
        except ValidationError as error:
            raise InvalidBodyError(error) from error
        request_id = asked.request_id or request_id
        return await _answer(service, asked, request_id, deadline, caller)
    except MoleError as error:
        return BatchItemError(error=Problem(**problems.document(error, request_id)))
    except Exception:  # a fault in one item must not take the others' answers
        logger.exception("request %s failed unexpectedly", request_id)
        return BatchItemError(error=Problem(**problems.document(problems.unexpected(), request_id)))


async def _answer(
    service: Service, asked: ExpertRequest, request_id: str, deadline: float, caller: str
) -> ExpertAnswer:
    intake.check_limits(asked, service.settings)
    pool = service.pool
    outcome = "ok"
    task = "unknown"
    try:
        expert = pool.find(asked.task_key, asked.language, asked.adapter_name)
        task = expert.task_key
        async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
            answer = await pool.classify(expert, asked, deadline=deadline, caller=caller)
    except TimeoutError as error:
        outcome = DeadlineError.slug
        raise DeadlineError("The time that the caller gave is up.") from error
    except MoleError as error:
        outcome = error.slug
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except Exception:
        outcome = "internal-error"
        raise
    finally:
        service.metrics.experts.labels(task, outcome).inc()
    return answer.model_copy(update={"request_id": request_id})


@contextmanager
def _timed(exchange: Exchange) -> Iterator[None]:
    """What passes inside is the experts' time, not the service's own."""
    began = time.perf_counter()
    try:
        yield
    finally:
        exchange.expert_ms = (time.perf_counter() - began) * 1000


def _exchange(request: Request) -> Exchange:
    return cast(Exchange, request.scope["mole"])


def _json(body: BaseModel, status: int = HTTPStatus.OK) -> Response:
    return Response(body.__pydantic_serializer__.to_json(body), status, media_type="application/json")

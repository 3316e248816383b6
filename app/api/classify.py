"""Classifying: one text, many texts, or the route alone."""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from urllib.parse import quote

from fastapi import APIRouter, Request
from pydantic import JsonValue, ValidationError
from starlette.responses import Response

from app.api import errors, examples, openapi
from app.api.messages import answer, parse, runtime_of, written
from app.asgi.exchange import NO_EXPERT, Exchange, exchange_of
from app.services.classification import Classification
from app.services.ports import Call
from app.services.runtime import Runtime
from moe_router.contracts import (
    BatchAnswer,
    BatchItemError,
    BatchRequest,
    ClassifyAnswer,
    ClassifyRequest,
    Problem,
    RouteAnswer,
)
from moe_router.errors import MoleError, RequestError
from moe_router.invalid_body import InvalidBodyError
from moe_router.members import AnswerMembers
from moe_router.registry import Expert

logger = logging.getLogger(__name__)

MOST_MEMBERS = 1000
"""Of an item of a batch, and of its `fields`."""

router = APIRouter(prefix="/api/v1", tags=["classify"])


@router.post(
    "/classify",
    summary="Classify a text",
    responses=openapi.answers(ClassifyAnswer, openapi.CLASSIFY_STATUSES, examples.CLASSIFY),
    openapi_extra=openapi.body(ClassifyRequest),
)
async def classify(request: Request) -> Response:
    """Finds the language, the domain and the task, asks the expert, and answers with its label.

    Where nothing on offer fits, `result` is null and `abstained` says why.
    """
    exchange = exchange_of(request.scope)
    runtime = runtime_of(request)
    service = runtime.classification()
    runtime.admission.enter(exchange.caller)
    try:
        asked = parse(ClassifyRequest, request)
        call = Call(exchange.request_id, service.deadline(asked), exchange.trace, exchange.caller, alone=True)
        try:
            found, expert = await service.classify(asked, call)
        finally:
            exchange.worker_ms = call.worker_ms
            exchange.hedged = bool(call.hedges)
    finally:
        runtime.admission.leave(exchange.caller)
    exchange.expert = expert_name(found, expert)
    return written(found)


@router.post(
    "/route",
    summary="Decide without asking an expert",
    responses=openapi.answers(RouteAnswer, openapi.ROUTE_STATUSES, examples.ROUTE),
    openapi_extra=openapi.body(ClassifyRequest),
)
async def route(request: Request) -> Response:
    """The decision of `/classify`, by the same code, and the workers that would be asked."""
    exchange = exchange_of(request.scope)
    runtime = runtime_of(request)
    service = runtime.classification()
    with runtime.admission.request(exchange.caller):
        asked = parse(ClassifyRequest, request)
        call = Call(exchange.request_id, service.deadline(asked), exchange.trace, exchange.caller)
        return answer(await service.route(asked, call))


@router.post(
    "/classify/batch",
    summary="Classify up to 100 texts",
    responses=openapi.answers(BatchAnswer, openapi.BATCH_STATUSES, examples.BATCH),
    openapi_extra=openapi.body(BatchRequest),
)
async def classify_batch(request: Request) -> Response:
    """Runs the items at once; each is answered or refused by itself, in the order of the items."""
    exchange = exchange_of(request.scope)
    runtime = runtime_of(request)
    service = runtime.classification()
    with runtime.admission.request(exchange.caller):
        batch = parse(BatchRequest, request)
    exchange.take_texts(len(batch.items) - 1)
    results = await asyncio.gather(
        *(_item(runtime, service, item, index, exchange) for index, item in enumerate(batch.items))
    )
    return written({"results": results})


def expert_name(found: AnswerMembers, expert: Expert | None) -> str:
    """The value of X-MoLE-Expert: task and expert, such as social/sentiment_analysis@soc-sentiment."""
    if found["result"] is None or found["task"] is None:
        return NO_EXPERT
    return _quoted(found["task"], expert.name if expert is not None else found["model_key"])


@lru_cache(maxsize=1024)
def _quoted(task: str, expert: str | None) -> str:
    return quote(f"{task}@{expert}", safe="/@:")


async def ask(
    runtime: Runtime,
    service: Classification,
    asked: ClassifyRequest,
    request_id: str,
    exchange: Exchange,
    *,
    alone: bool = False,
) -> tuple[AnswerMembers, Expert | None]:
    """One of the questions of an exchange, counted as a request of its own; `alone` where it is the only one.

    Raises:
        MoleError: as `Classification.classify`, and where the house is full.
    """
    call = Call(
        request_id, service.deadline(asked), exchange.trace, exchange.caller, alone=alone, bundled=not alone
    )
    with runtime.admission.request(exchange.caller):
        answered = await service.classify(asked, call)
    # They may overlap: the longest wait for workers is what the whole owes to them.
    exchange.worker_ms = max(exchange.worker_ms, call.worker_ms)
    exchange.hedged = exchange.hedged or bool(call.hedges)
    return answered


def _check_members(item: JsonValue) -> None:
    """Refuses what has very many members: to tell what is wrong with each of them takes a second.

    Raises:
        RequestError: it has.
    """
    for name, value in (
        ("The item", item),
        ("fields", item.get("fields") if isinstance(item, dict) else None),
    ):
        if isinstance(value, dict) and len(value) > MOST_MEMBERS:
            raise RequestError(f"{name}: has {len(value)} members; the limit is {MOST_MEMBERS}.")


async def _item(
    runtime: Runtime, service: Classification, item: JsonValue, index: int, exchange: Exchange
) -> AnswerMembers | BatchItemError:
    request_id = f"{exchange.request_id[:120]}.{index}"
    try:
        try:
            _check_members(item)
            asked = ClassifyRequest.model_validate(item)
        except ValidationError as error:
            raise InvalidBodyError(error) from error
        found, _ = await ask(runtime, service, asked, request_id, exchange)
        return found
    except MoleError as error:
        return BatchItemError(error=Problem(**errors.document(error, request_id)))
    except Exception:  # a fault in one item must not take the others' answers
        logger.exception("request %s failed unexpectedly", request_id)
        return BatchItemError(error=Problem(**errors.document(errors.unexpected(), request_id)))

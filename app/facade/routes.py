"""The paths of the façade."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from http import HTTPStatus
from types import UnionType
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.api import openapi
from app.api.messages import answer, parse, runtime_of
from app.asgi.exchange import exchange_of
from app.facade.asking import AUTO, OWN, answered, loaded_at, task_of
from app.facade.chat import description_of, text_of, to_chat, to_events
from app.facade.classified import to_infinity, to_vllm
from app.facade.schemas import (
    ChatAnswer,
    ChatRequest,
    ClassifiedList,
    ClassifyInputs,
    ErrorAnswer,
    InfinityList,
    ModelCard,
    ModelList,
)
from moe_router.contracts import ClassifyAnswer

EVENTS = {"schema": {"type": "string"}, "example": 'data: {"object": "chat.completion.chunk", …}\n\n'}
"""What a streamed answer is to the OpenAPI document."""

router = APIRouter(prefix="/v1", tags=["openai"])

ASK_STATUSES = (400, 401, 403, 404, 408, 413, 415, 429, 431, 500, 502, 503, 504)
READ_STATUSES = (401, 403, 404, 429, 431, 500, 503)


def _answers(
    model: type[BaseModel] | UnionType, statuses: tuple[int, ...]
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation: errors are OpenAI's, not problem documents."""
    found = openapi.answers(model, statuses)
    if model is ChatAnswer:
        found[HTTPStatus.OK]["content"] = {"text/event-stream": EVENTS}
    for status in statuses:
        found[status].pop("content")
        found[status]["model"] = ErrorAnswer
    return found


@router.post(
    "/chat/completions",
    summary="Classify by a chat completion",
    responses=_answers(ChatAnswer, ASK_STATUSES),
    openapi_extra=openapi.body(ChatRequest),
)
async def chat_completions(request: Request) -> Response:
    """The last user message is the text, the system messages say what to find out; the reply is the label.

    `model` is `mole/auto` or `mole/` and a task key. Entities are a JSON object; where MoLE abstains,
    `content` is null and `refusal` says why.
    """
    runtime, exchange = runtime_of(request), exchange_of(request.scope)
    asked = parse(ChatRequest, request)
    text, description = text_of(asked), description_of(asked)
    task = task_of(asked.model, runtime)
    found = await answered(runtime, exchange, text, description, task, exchange.request_id, alone=True)
    completion = to_chat(found, asked)
    if not asked.stream:
        return answer(completion)
    usage = asked.stream_options is not None and asked.stream_options.include_usage
    return Response(to_events(completion, usage), media_type="text/event-stream")


@router.get("/models", summary="All tasks as models", responses=_answers(ModelList, READ_STATUSES))
async def models(request: Request) -> Response:
    """`mole/auto`, which finds the task, and one model a task."""
    runtime = runtime_of(request)
    since = loaded_at(runtime)
    names = [AUTO, *(OWN + key for key in runtime.registry.tasks)]
    return answer(ModelList(data=[ModelCard(id=name, created=since) for name in names]))


@router.get(
    "/models/{model:path}", summary="One task as a model", responses=_answers(ModelCard, READ_STATUSES)
)
async def model(request: Request, model: str) -> Response:
    """A model of the list."""
    runtime = runtime_of(request)
    task = task_of(model, runtime)
    return answer(ModelCard(id=AUTO if task is None else OWN + task, created=loaded_at(runtime)))


@router.post(
    "/classify",
    summary="Classify as vLLM and Infinity do",
    responses=_answers(ClassifiedList | InfinityList, ASK_STATUSES),
    openapi_extra=openapi.body(ClassifyInputs),
)
async def classify(request: Request) -> Response:
    """Labels and their probabilities in the form of vLLM's classification API; one error fails the whole.

    A request with `raw_scores`, which Infinity's clients send and vLLM's do not, is answered in Infinity's
    form.
    """
    runtime, exchange = runtime_of(request), exchange_of(request.scope)
    asked = parse(ClassifyInputs, request)
    task = task_of(asked.model, runtime)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    exchange.take_texts(len(texts) - 1)
    ids = [f"{exchange.request_id[:120]}.{index}" for index in range(len(texts))]
    # Each ends before an error is told, so that no item is left running behind the answer.
    found = await _all(
        answered(runtime, exchange, text, asked.description, task, request_id)
        for text, request_id in zip(texts, ids, strict=True)
    )
    if asked.raw_scores is not None:
        return answer(to_infinity(found, asked.model, exchange.request_id))
    return answer(to_vllm(found, asked.model, exchange.request_id, runtime))


async def _all(asking: Iterable[Coroutine[Any, Any, ClassifyAnswer]]) -> list[ClassifyAnswer]:
    """All answers, or the first error in the order of the items."""
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, ClassifyAnswer)]

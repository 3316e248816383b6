"""The paths of the façade."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.api import openapi
from app.api.messages import answer, parse, runtime_of
from app.asgi.exchange import exchange_of
from app.facade.asking import AUTO, OWN, answered, loaded_at, model_of, task_of
from app.facade.chat import description_of, text_of, to_chat, to_events
from app.facade.schemas import (
    ChatAnswer,
    ChatRequest,
    Classified,
    ClassifiedList,
    ClassifyInputs,
    ErrorAnswer,
    ModelCard,
    ModelList,
)
from app.services.runtime import Runtime
from moe_router.contracts import ClassifyAnswer

EVENTS = {"schema": {"type": "string"}, "example": 'data: {"object": "chat.completion.chunk", …}\n\n'}
"""What a streamed answer is to the OpenAPI document."""

router = APIRouter(prefix="/v1", tags=["openai"])

ASK_STATUSES = (400, 401, 403, 404, 408, 413, 415, 429, 431, 500, 502, 503, 504)
READ_STATUSES = (401, 403, 404, 429, 431, 500, 503)


def _answers(model: type[BaseModel], statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
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
    summary="Classify as vLLM does",
    responses=_answers(ClassifiedList, ASK_STATUSES),
    openapi_extra=openapi.body(ClassifyInputs),
)
async def classify(request: Request) -> Response:
    """Labels and their probabilities in the form of vLLM's classification API; one error fails the whole."""
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
    return answer(
        ClassifiedList(
            id=f"classify-{exchange.request_id}",
            created=int(time.time()),
            model=asked.model if len({said.task for said in found}) > 1 else model_of(found[0], asked.model),
            data=[_classified(index, said, runtime) for index, said in enumerate(found)],
        )
    )


async def _all(asking: Iterable[Coroutine[Any, Any, ClassifyAnswer]]) -> list[ClassifyAnswer]:
    """All answers, or the first error in the order of the items."""
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, ClassifyAnswer)]


def _classified(index: int, found: ClassifyAnswer, runtime: Runtime) -> Classified:
    """One entry; a label set that the registry has changed in between is in the answer's own order."""
    spread = found.probabilities or {}
    task = runtime.registry.tasks.get(found.task or "")
    order = [label for label in (task.label_set if task is not None else ()) if label in spread] or list(
        spread
    )
    return Classified(
        index=index,
        label=found.result,
        probs=[spread[label] for label in order],
        num_classes=len(order),
        mole=found,
    )

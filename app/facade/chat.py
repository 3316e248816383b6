"""A chat completion whose only token is the label."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import orjson

from app.facade.asking import model_of
from app.facade.schemas import (
    ChatAnswer,
    ChatRequest,
    Choice,
    ContentLogprob,
    Logprobs,
    Message,
    ReplyMessage,
    TokenLogprob,
    Usage,
)
from moe_router.contracts import ClassifyAnswer
from moe_router.errors import RequestError

NEVER = -9999.0
"""The logarithm of a probability of 0, as OpenAI gives it."""
SYSTEM = ("system", "developer")


def text_of(request: ChatRequest) -> str:
    """The last user message.

    Raises:
        RequestError: there is none, or it is more than text.
    """
    for message in reversed(request.messages):
        if message.role == "user":
            return _content(message)
    raise RequestError("messages: there is no user message; its content is the text to classify.")


def description_of(request: ChatRequest) -> str | None:
    """The system messages, which say what to find out."""
    said = [_content(message) for message in request.messages if message.role in SYSTEM]
    return "\n".join(part for part in said if part) or None


def to_chat(found: ClassifyAnswer, request: ChatRequest) -> ChatAnswer:
    """The answer as a completion."""
    logprobs = to_logprobs(found, request.top_logprobs or 0) if request.logprobs else None
    return ChatAnswer(
        id=f"chatcmpl-{found.request_id}",
        created=int(time.time()),
        model=model_of(found, request.model),
        choices=[Choice(message=_reply(found), logprobs=logprobs)],
        mole=found,
    )


def to_events(answer: ChatAnswer, include_usage: bool) -> bytes:
    """The answer as server-sent events; it is there at once, so that they are few."""
    (choice,) = answer.choices
    common = {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": answer.created,
        "model": answer.model,
    }
    said = {"content": choice.message.content}
    if choice.message.refusal is not None:
        said = {"refusal": choice.message.refusal}
    logprobs = None if choice.logprobs is None else choice.logprobs.model_dump()

    def event(delta: Mapping[str, object], finish: str | None, logprobs: object = None) -> dict[str, object]:
        return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    chunks: list[dict[str, object]] = [
        {**common, "choices": [event({"role": "assistant", "content": ""}, None)]},
        {**common, "choices": [event(said, None, logprobs)]},
        {**common, "choices": [event({}, choice.finish_reason)], "mole": answer.mole.model_dump()},
    ]
    if include_usage:
        chunks.append({**common, "choices": [], "usage": Usage().model_dump()})
    lines = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks]
    return b"".join([*lines, b"data: [DONE]\n\n"])


def to_logprobs(found: ClassifyAnswer, top: int) -> Logprobs | None:
    """Natural logarithms of the label's probability and of the `top` likeliest ones."""
    if found.result is None or not found.probabilities:
        return None
    ranked = sorted(found.probabilities.items(), key=lambda pair: -pair[1])[:top]
    chosen = _token(found.result, found.probabilities.get(found.result, found.confidence))
    likeliest = [_token(label, probability) for label, probability in ranked]
    return Logprobs(content=[ContentLogprob(**chosen.model_dump(), top_logprobs=likeliest)])


def _token(label: str, probability: float) -> TokenLogprob:
    logprob = math.log(probability) if probability > 0 else NEVER
    return TokenLogprob(token=label, logprob=logprob, bytes=list(label.encode()))


def _reply(found: ClassifyAnswer) -> ReplyMessage:
    if found.abstained is not None:
        return ReplyMessage(content=None, refusal=f"{found.abstained.reason}: {found.abstained.detail}")
    if found.entities is not None:
        entities = [entity.model_dump() for entity in found.entities]
        return ReplyMessage(content=orjson.dumps({"entities": entities}).decode())
    return ReplyMessage(content=found.result)


def _content(message: Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    if any(part.type != "text" for part in message.content):
        raise RequestError("messages: only text can be classified.")
    return "".join(part.text or "" for part in message.content)

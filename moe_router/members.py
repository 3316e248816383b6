"""What we say ourselves, as plain members: dictionaries that orjson writes as the models of `contracts`.

A model checks what it is made of, which costs several times as much as to write it. What others say has to be
checked, what our own code has just put together need not be: the type checker and the tests look after that.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from moe_router.contracts import Abstention, Entity, Step


class StepMembers(TypedDict):
    """A `RouteStep`."""

    step: Step
    choice: str | None
    probability: float | None
    ms: float


class TimingsMembers(TypedDict):
    """`Timings`."""

    language: float
    encode: float
    domain: float
    task: float
    worker: float
    total: float


class AnswerMembers(TypedDict):
    """A `ClassifyAnswer`."""

    request_id: str
    language: str
    domain: str | None
    task: str | None
    result: str | None
    confidence: float
    probabilities: dict[str, float] | None
    domain_probabilities: dict[str, float] | None
    entities: list[Entity] | None
    abstained: Abstention | None
    raw_response: str | None
    routing_path: list[StepMembers]
    worker_id: str | None
    model_key: str | None
    processing_time_ms: float
    timings_ms: TimingsMembers


class ExpertMembers(TypedDict):
    """An `ExpertRequest`; what is not said is left out."""

    task_key: str
    text: str
    language: str
    description: NotRequired[str]
    fields: NotRequired[dict[str, str]]
    adapter_name: NotRequired[str]
    request_id: NotRequired[str]
    return_probabilities: bool

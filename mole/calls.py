"""Every request to the coordinator as a value: what is sent, and how the answer is read.

Nothing here does I/O, so that the blocking and the asynchronous client share all of it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mole.jobs import LINES, path_of, to_chunks

if TYPE_CHECKING:
    from pydantic import BaseModel

    from moe_router.contracts import (
        ClassifyAnswer,
        CoordinatorHealth,
        FeedbackAnswer,
        JobAnswer,
        JobsAnswer,
        RouteAnswer,
        TaskInfo,
        WorkersAnswer,
    )

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound="BaseModel")
Item = str | Mapping[str, Any]
"""A text, or the body of a `classify` request."""
JSON = {"Content-Type": "application/json"}
GRACE_S = 10.0
"""What a client waits beyond the time it grants the service, so that the service's own 504 arrives."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request."""

    method: str
    path: str
    read: Callable[[bytes], T]
    """raises a ValueError where the bytes are no such answer"""
    content: Callable[[], Any] = lambda: None
    """the body: bytes, or an iterable of bytes; asked for anew at each attempt"""
    headers: Mapping[str, str] = field(default_factory=dict)
    granted_s: float | None = None
    """the time that the caller states for the service"""
    repeatable: bool = True
    """whether it may be sent again, also where the service may have seen it"""
    any_status: bool = False
    """whether an error status carries an answer, too"""

    @property
    def timeout_s(self) -> float | None:
        """Another bound on each wait than the client's own."""
        return None if self.granted_s is None else self.granted_s + GRACE_S


def classify(
    text: str,
    description: str | None = None,
    *,
    fields: Mapping[str, str] | None = None,
    **options: Any,
) -> Call[ClassifyAnswer]:
    """The label or entities of a text.

    Args:
        text: What to classify.
        description: What to find out, in any language.
        fields: Values for the template's further names.
        **options: Members of the request's `options`, such as `task`, `language`, `via`,
            `on_abstain`, `return_probabilities`, `timeout_seconds`; nothing is tried again after the last.

    Raises:
        MoleAPIError: the coordinator answered with problem details.
        MoleConnectionError: it did not answer.
    """
    from moe_router.contracts import ClassifyAnswer

    return _post("/classify", body(text, description, fields, options), ClassifyAnswer, granted(options))


def route(
    text: str,
    description: str | None = None,
    *,
    fields: Mapping[str, str] | None = None,
    **options: Any,
) -> Call[RouteAnswer]:
    """The gating decision alone, by the same code as `classify`; no expert is called.

    Raises:
        MoleAPIError: the coordinator answered with problem details.
        MoleConnectionError: it did not answer.
    """
    from moe_router.contracts import RouteAnswer

    return _post("/route", body(text, description, fields, options), RouteAnswer, granted(options))


def feedback(
    request_id: str,
    *,
    correct_task: str | None = None,
    correct_label: str | None = None,
    score: float | None = None,
) -> Call[FeedbackAnswer]:
    """Says what the right answer would have been; returns once that is stored durably.

    Args:
        request_id: Of the answer that is judged.
        correct_task: The task that was asked for, as a whole task key.
        correct_label: The label that is right for that task, or for the task that was chosen.
        score: How good the answer was, from 0 to 1.

    Raises:
        MoleAPIError: the coordinator answered with problem details; 404 where it has no record
            of the request.
        MoleConnectionError: it did not answer.
    """
    from moe_router.contracts import FeedbackAnswer

    said = {"correct_task": correct_task, "correct_label": correct_label, "score": score}
    return _post("/feedback", {"request_id": request_id, **stated(said)}, FeedbackAnswer)


def submit_job(
    items: Iterable[Item] | Iterable[bytes], *, idempotency_key: str | None = None
) -> Call[JobAnswer]:
    """Hands many requests in at once; returns when they are stored durably.

    Args:
        items: Texts, or bodies of `classify` requests such as {"text": …, "description": …}; or JSON
            Lines as bytes, in any pieces. Sent as they are produced; what can be read only once (a
            generator, a file) is not tried again.
        idempotency_key: The same key and items again give the same job. Without one, each call
            makes up its own, so that trying again makes no second job.

    Raises:
        MoleAPIError: the coordinator answered with problem details.
        MoleConnectionError: it did not answer.
    """
    headers = {"Content-Type": LINES, "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    repeatable = isinstance(items, list | tuple)
    return Call("POST", "/jobs", _job, lambda: to_chunks(items), headers, repeatable=repeatable)


def job(job_id: str) -> Call[JobAnswer]:
    """How far a job is.

    Raises:
        MoleAPIError: the coordinator answered with problem details; 404 where there is no such job.
        MoleConnectionError: it did not answer.
    """
    return Call("GET", path_of(job_id), _job)


def jobs() -> Call[JobsAnswer]:
    """Your newest jobs, newest first.

    Raises:
        MoleAPIError, MoleConnectionError: as `job`.
    """
    from moe_router.contracts import JobsAnswer

    return Call("GET", "/jobs", reader(JobsAnswer))


def cancel_job(job_id: str) -> Call[JobAnswer]:
    """Cancels a job; one that is finished stays as it is. Results so far can still be read.

    Raises:
        MoleAPIError, MoleConnectionError: as `job`.
    """
    return Call("DELETE", path_of(job_id), _job)


def tasks() -> Call[list[TaskInfo]]:
    """What can be asked.

    Raises:
        MoleAPIError, MoleConnectionError: as `job`.
    """
    from moe_router.contracts import TasksAnswer

    return Call("GET", "/tasks", lambda content: TasksAnswer.model_validate_json(content).tasks)


def workers() -> Call[WorkersAnswer]:
    """Who serves it, and how each worker is.

    Raises:
        MoleAPIError, MoleConnectionError: as `job`.
    """
    from moe_router.contracts import WorkersAnswer

    return Call("GET", "/workers", reader(WorkersAnswer))


def health() -> Call[CoordinatorHealth]:
    """The coordinator's state, also while it is not ready.

    Raises:
        MoleConnectionError: it did not answer.
    """
    from moe_router.contracts import CoordinatorHealth

    return Call("GET", "/health", reader(CoordinatorHealth), any_status=True)


def batch(items: list[dict[str, Any]], granted_s: float | None = None) -> Call[list[dict[str, Any]]]:
    """Up to 100 requests at once; the results are read by whoever knows the items."""
    content = json.dumps({"items": items}, ensure_ascii=False).encode()

    def read(answered: bytes) -> list[dict[str, Any]]:
        results = json.loads(answered)["results"]
        if not isinstance(results, list) or len(results) != len(items):
            raise ValueError("there is not one result an item")
        return results

    return Call("POST", "/classify/batch", read, lambda: content, JSON, granted_s)


def body(
    text: str,
    description: str | None,
    fields: Mapping[str, str] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON of a request; what is None is left to the service's default."""
    return {
        "text": text,
        **stated({"description": description, "fields": fields, "options": stated(options) or None}),
    }


def reader(model: type[ModelT]) -> Callable[[bytes], ModelT]:
    """Reads an answer as a model."""
    return lambda content: model.model_validate_json(content)


def stated(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are not None."""
    return {name: value for name, value in members.items() if value is not None}


def granted(options: Mapping[str, Any]) -> float | None:
    """The time that a request's options state for it."""
    said = options.get("timeout_seconds")
    return None if said is None else float(said)


def _post(path: str, sent: Any, model: type[ModelT], granted_s: float | None = None) -> Call[ModelT]:
    content = json.dumps(sent, ensure_ascii=False).encode()
    return Call("POST", path, reader(model), lambda: content, JSON, granted_s)


def _job(content: bytes) -> JobAnswer:
    from moe_router.contracts import JobAnswer

    return JobAnswer.model_validate_json(content)

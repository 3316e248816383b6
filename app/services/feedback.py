"""Takes callers' feedback: checks it against the registry and the decision, and stores it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.services.recording import label_key
from app.storage.identity import job_identity
from app.storage.records import FeedbackRecord, FoundDecision
from moe_router.contracts import FeedbackAnswer, FeedbackRequest
from moe_router.errors import RequestError, UnknownRequestError
from moe_router.registry import Registry, TaskSpec

if TYPE_CHECKING:
    from app.storage.storage import Storage

SHOWN_LABELS = 100


async def store(
    request: FeedbackRequest, caller: str, *, everybodys: bool, registry: Registry, storage: Storage
) -> FeedbackAnswer:
    """Stores feedback durably before it returns; the same caller's next about a request replaces it.

    `everybodys`: also about a request of another caller.

    Raises:
        UnknownTaskError: the registry has no such task.
        UnknownRequestError: no request of that id was answered to the caller, or its record has expired.
        RequestError: the label is none of the task's.
        StorageError: the database cannot be used now; nothing was stored.
    """
    if request.correct_task is not None:
        registry.task(request.correct_task)
    caller_hash = await storage.callers.hash_of(caller)
    of_jobs = await storage.callers.hash_of(job_identity(caller_hash))
    only = None if everybodys else (caller_hash, of_jobs)
    decision = await storage.find_decision(request.request_id, caller_hash, only=only)
    if decision is None:
        raise UnknownRequestError(
            f"No request {request.request_id} was answered by /classify, or its record has expired."
        )
    now = storage.clock()
    replaced = await storage.feedback.put(
        FeedbackRecord(
            request_id=request.request_id,
            caller_hash=caller_hash,
            decision_id=decision.id,
            correct_task=request.correct_task,
            correct_label=_label(request, decision, registry),
            score=request.score,
            at=now,
        )
    )
    received = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    return FeedbackAnswer(request_id=request.request_id, received_at=received, replaced=replaced)


def _label(request: FeedbackRequest, decision: FoundDecision, registry: Registry) -> str | None:
    """The label as it is stored, after a check against the task that it is for."""
    label = request.correct_label
    if label is None:
        return None
    key = request.correct_task or decision.task
    if key is None:
        raise RequestError(
            "correct_label: the request was abstained from; name the task, too, in correct_task."
        )
    task = registry.tasks.get(key)  # None: the task was taken out of the registry since
    if task is not None:
        _check(label, key, task)
    return label_key(label, task)


def _check(label: str, key: str, task: TaskSpec) -> None:
    if task.kind == "extraction":
        raise RequestError(f"correct_label: {key} finds entities and has no label; send a score.")
    if task.label_set and task.strict_label_decoding and label not in task.label_set:
        shown = ", ".join(task.label_set[:SHOWN_LABELS])
        raise RequestError(f"correct_label: is no label of {key}. Its labels: {shown}.")

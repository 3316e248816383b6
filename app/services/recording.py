"""Turns what happened to a request into a row for the learner; no text goes into it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from app.services.course import Course
from app.services.ports import Call
from app.storage.records import ACTION_CHARS, DecisionRecord
from moe_router.contracts import ClassifyRequest
from moe_router.errors import DeadlineError, MoleError
from moe_router.gating.weights import Floats
from moe_router.registry import TaskSpec

logger = logging.getLogger(__name__)

Record = Callable[[DecisionRecord], None]
CANCELLED = "cancelled"
"""Fault of a request whose caller went before the answer."""


class recorded:  # noqa: N801 - read as a word: `with recorded(course, …):`
    """Records the request when the block has ended, however it did, and the event loop turns next.

    By then the answer is sent: nobody waits for what is done here.
    """

    __slots__ = ("_call", "_course", "_record", "_request", "_task")

    def __init__(
        self,
        course: Course,
        request: ClassifyRequest,
        call: Call,
        task: TaskSpec | None,
        record: Record | None,
    ) -> None:
        self._course = course
        self._request = request
        self._call = call
        self._task = task
        self._record = record

    def __enter__(self) -> None:
        """The request is decided."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It is answered, or will not be."""
        if self._record is not None:
            fault = self._fault(error) if error is not None else None
            if fault is None and self._course.fault is not None:
                fault = self._course.fault.slug
            asyncio.get_running_loop().call_soon(self._note, self._record, fault)

    def _fault(self, error: BaseException) -> str | None:
        if isinstance(error, MoleError):
            return error.slug if error.status >= 500 else None
        if isinstance(error, asyncio.CancelledError):
            return DeadlineError.slug if time.monotonic() >= self._call.deadline else CANCELLED
        return None

    def _note(self, record: Record, fault: str | None) -> None:
        try:
            record(_row(self._course, self._request, self._call, self._task, fault))
        except Exception:
            logger.exception("request %s cannot be recorded", self._call.request_id)


def label_key(label: str | None, task: TaskSpec | None) -> str | None:
    """A label of the task as it is; anything else as a hash, since free text may hold the caller's."""
    if label is None or (task is not None and (task.kind == "extraction" or label in task.label_set)):
        return label
    return f"sha256:{hashlib.sha256(label.encode()).hexdigest()}"


def _row(
    course: Course, request: ClassifyRequest, call: Call, task: TaskSpec | None, fault: str | None
) -> DecisionRecord:
    decision, state = course.decision, course.decision.state
    steps = _steps(course, task, fault)
    propensity = course.final.propensity if course.final is not None else 1.0
    for action in course.actions:
        propensity *= action.propensity
    return DecisionRecord(
        request_id=call.request_id,
        caller=call.caller,
        created_at=time.time(),
        encoder=decision.encoder,
        description_vector=_half(decision.description_vector),
        text_vector=_half(decision.text_vector),
        language=decision.language,
        language_probability=decision.language_probability,
        domain_probabilities=state.domains.as_dict(),
        task_probabilities=state.tasks.as_dict(),
        none_probability=state.tasks.none,
        task=decision.task,
        task_fixed=request.options.task is not None,
        abstained=decision.abstained.reason if decision.abstained is not None else None,
        action=steps[0]["action"] if steps else None,
        propensity=propensity,
        observations=steps,
        fault=fault,
        router_version=decision.router_version,
        via=decision.via,
    )


def _steps(course: Course, task: TaskSpec | None, fault: str | None) -> list[dict[str, Any]]:
    """The actions in order; one without an observation could not be asked."""
    steps: list[dict[str, Any]] = []
    seen, observations = 0, course.observations
    accepted = course.final.answer if course.final is not None else None
    for action in course.actions:
        expert = action.expert
        name = f"expert:{expert.name}"[:ACTION_CHARS] if expert is not None else "probe"
        cost = expert.cost if expert is not None else 0.0
        if seen < len(observations) and observations[seen].action == action:
            _, label, confidence, margin, pooled = observations[seen]
            steps.append(
                {
                    "action": name, "cost": cost, "label": label_key(label, task), "confidence": confidence,
                    "margin": margin, "pooled": pooled, "accepted": seen == accepted, "fault": None,
                }
            )  # fmt: skip
            seen += 1
        else:
            steps.append(
                {
                    "action": name, "cost": cost, "label": None, "confidence": 0.0,
                    "margin": 0.0, "pooled": False, "accepted": False, "fault": fault,
                }
            )  # fmt: skip
    return steps


def _half(vector: Floats | None) -> bytes | None:
    """Half precision changes the cosine of two unit vectors by less than 0.001."""
    return vector.astype("<f2").tobytes() if vector is not None else None

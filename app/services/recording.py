"""Turns what happened to a request into a row for the learner; no text goes into it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def recorded(
    course: Course, request: ClassifyRequest, call: Call, task: TaskSpec | None, record: Record | None
) -> Iterator[None]:
    """Records the request when the block has ended, however it did, and the event loop turns next.

    By then the answer is sent: nobody waits for what is done here.
    """
    fault: str | None = None
    try:
        yield
    except MoleError as error:
        fault = error.slug if error.status >= 500 else None
        raise
    except asyncio.CancelledError:
        fault = DeadlineError.slug if time.monotonic() >= call.deadline else CANCELLED
        raise
    finally:
        if record is not None:
            if fault is None and course.fault is not None:
                fault = course.fault.slug
            loop = asyncio.get_running_loop()
            loop.call_soon(_record, course, request, call, task, fault, record)


def _record(
    course: Course,
    request: ClassifyRequest,
    call: Call,
    task: TaskSpec | None,
    fault: str | None,
    record: Record,
) -> None:
    try:
        record(_row(course, request, call, task, fault))
    except Exception:
        logger.exception("request %s cannot be recorded", call.request_id)


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
    taken = [*course.actions, course.final] if course.final is not None else course.actions
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
        propensity=math.prod(action.propensity for action in taken),
        observations=steps,
        fault=fault,
        router_version=decision.router_version,
        via=decision.via,
    )


def _steps(course: Course, task: TaskSpec | None, fault: str | None) -> list[dict[str, Any]]:
    """The actions in order; one without an observation could not be asked."""
    steps, seen = [], 0
    accepted = course.final.answer if course.final is not None else None
    for action in course.actions:
        expert = action.expert
        step: dict[str, Any] = {
            "action": f"expert:{expert.name}"[:ACTION_CHARS] if expert is not None else "probe",
            "cost": expert.cost if expert is not None else 0.0,
            "label": None, "confidence": 0.0, "margin": 0.0, "pooled": False, "accepted": False,
            "fault": fault,
        }  # fmt: skip
        if seen < len(course.observations) and course.observations[seen].action == action:
            observation = course.observations[seen]
            step |= {
                "label": label_key(observation.label, task), "confidence": observation.confidence,
                "margin": observation.margin, "pooled": observation.pooled,
                "accepted": seen == accepted, "fault": None,
            }  # fmt: skip
            seen += 1
        steps.append(step)
    return steps


def _half(vector: Floats | None) -> bytes | None:
    """Half precision changes the cosine of two unit vectors by less than 0.001."""
    return vector.astype("<f2").tobytes() if vector is not None else None

"""The course of one request: what was decided, asked and answered so far, and the answer that comes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from app.services.ports import Call
from moe_router.contracts import (
    Abstention,
    ClassifyRequest,
    ExpertAnswer,
    Step,
)
from moe_router.errors import MoleError
from moe_router.gating.decision import Decision
from moe_router.gating.probe import ProbeAnswer
from moe_router.gating.task_router import Action, Observation, standing
from moe_router.members import AnswerMembers, StepMembers, TimingsMembers
from moe_router.registry import Expert

PROBE: Final = "probe"


class Said(NamedTuple):
    """What the probe or an expert answered."""

    said: ExpertAnswer | ProbeAnswer
    expert: Expert | None = None
    worker_id: str | None = None


@dataclass(slots=True)
class Course:
    """What happened to one request so far."""

    decision: Decision
    steps: list[StepMembers]
    actions: list[Action] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    failed: list[Expert] = field(default_factory=list)
    fault: MoleError | None = None
    answers: list[Said] = field(default_factory=list)
    """who answered what, beside `observations`"""
    accepted: Said | None = None
    abstained: Abstention | None = None
    final: Action | None = None
    """what ended the asking: accepting an answer, or abstaining"""

    @property
    def expert(self) -> Expert | None:
        """The LLM expert whose answer was accepted."""
        return self.accepted.expert if self.accepted is not None else None

    def end(self, final: Action) -> None:
        """The router accepts an answer, or trusts none."""
        self.final = final
        if final.answer is not None:
            self.accepted = self.answers[final.answer]
        else:
            self.abstained = withheld(self)

    def note(self, step: Step, choice: str, probability: float, began: float) -> None:
        """Adds a step to the routing path."""
        self.steps.append({"step": step, "choice": choice, "probability": probability, "ms": ms_since(began)})


def answer_of(request: ClassifyRequest, course: Course, call: Call, started: float) -> AnswerMembers:
    """The answer that a course has come to; `started` is of time.perf_counter()."""
    decision, accepted = course.decision, course.accepted
    everything = request.options.return_probabilities
    timings = timings_of(decision, call.worker_ms, started)
    answer: AnswerMembers = {
        "request_id": call.request_id,
        "language": decision.language,
        "domain": decision.domain,
        "task": None,
        "result": None,
        "confidence": decision.confidence,
        "probabilities": None,
        "domain_probabilities": decision.domain_probabilities if everything else None,
        "entities": None,
        "abstained": course.abstained,
        "raw_response": None,
        "routing_path": course.steps,
        "worker_id": None,
        "model_key": None,
        "processing_time_ms": timings["total"],
        "timings_ms": timings,
    }
    if accepted is None:
        return answer
    said = accepted.said
    answer["task"], answer["confidence"] = decision.task, said.confidence
    if everything:
        answer["probabilities"] = said.probabilities
    if isinstance(said, ExpertAnswer):
        answer["result"], answer["entities"] = said.result, said.entities
        answer["worker_id"], answer["model_key"] = accepted.worker_id, said.model_key
        if request.options.return_raw_response:
            answer["raw_response"] = said.raw_response
    else:
        answer["result"], answer["model_key"] = said.label, PROBE
    return answer


def withheld(course: Course) -> Abstention:
    """The router trusts none of the answers enough."""
    best = max(observation.confidence for observation in standing(course.observations))
    detail = (
        f"The surest answer has confidence {best:.2f}, which the router does not trust enough. "
        "Ask a person, or lower MOLE_ABSTAIN_VALUE."
    )
    tasks = [course.decision.task] if course.decision.task is not None else []
    return Abstention(reason="low_confidence", detail=detail, nearest_tasks=tasks)


def margin(probabilities: Mapping[str, float] | None) -> float:
    """How far the best label's probability is above the second's; 0 where there are not two."""
    if probabilities is None:
        return 0.0
    best = sorted(probabilities.values(), reverse=True)[:2]
    return best[0] - best[1] if len(best) == 2 else 0.0


def timings_of(decision: Decision, worker_ms: float, started: float) -> TimingsMembers:
    """Gating's times, with that of the workers and the whole."""
    spent = decision.timings
    return {
        "language": spent.language,
        "encode": spent.encode,
        "domain": spent.domain,
        "task": spent.task,
        "worker": worker_ms,
        "total": ms_since(started),
    }


def ms_since(started: float) -> float:
    """Milliseconds since a moment of time.perf_counter()."""
    return (time.perf_counter() - started) * 1000

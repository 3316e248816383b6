"""From a request to an answer: decide, act, observe, until the router accepts or abstains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from moe_router.gating.pipeline import Action, Decision, Observation, ProbeAnswer

from app.services.limits import Limits
from app.services.metrics import Metrics
from app.services.ports import Call, Experts, Gating
from app.services.stats import Stats
from moe_router.contracts import (
    Abstention,
    ChosenExpert,
    ClassifyAnswer,
    ClassifyRequest,
    ExpertAnswer,
    ExpertRequest,
    RouteAnswer,
    RouteStep,
    Timings,
)
from moe_router.errors import (
    AbstainedError,
    DeadlineError,
    MoleError,
    NoWorkerError,
    OverloadedError,
    UnsupportedLanguageError,
    WorkerAnswerError,
)
from moe_router.registry import Expert, Registry

T = TypeVar("T")
PROBE = "probe"
FLEET_FAULTS = (NoWorkerError, OverloadedError, WorkerAnswerError)
"""After these another expert of the task may still answer."""


@dataclass(slots=True)
class _Course:
    """What happened to one request so far."""

    decision: Decision
    steps: list[RouteStep]
    observations: list[Observation] = field(default_factory=list)
    failed: set[Expert] = field(default_factory=set)
    fault: MoleError | None = None
    answer: ExpertAnswer | ProbeAnswer | None = None
    worker_id: str | None = None
    expert: Expert | None = None


class Classification:
    """The same code decides for `/route` and `/classify`."""

    def __init__(
        self,
        gating: Gating,
        experts: Experts,
        registry: Registry,
        *,
        limits: Limits,
        default_timeout_s: float,
        metrics: Metrics,
        stats: Stats,
    ) -> None:
        self._gating = gating
        self._experts = experts
        self._registry = registry
        self._limits = limits
        self._default_timeout_s = default_timeout_s
        self._metrics = metrics
        self._stats = stats

    def deadline(self, request: ClassifyRequest) -> float:
        """When the whole request ends, in seconds of time.monotonic()."""
        return time.monotonic() + (request.options.timeout_seconds or self._default_timeout_s)

    async def route(self, request: ClassifyRequest, call: Call) -> RouteAnswer:
        """The decision alone; no expert is called.

        Raises:
            MoleError: the request is wrong, or its time is up.
        """
        started = time.perf_counter()
        decision = await self._within(self._decide(request), call)
        experts = [] if decision.abstained else self._gating.candidates(decision, reachable=_anything)
        near = [e for e in experts if self._experts.reachable(e)]
        preferred = (near or experts)[:1]
        workers = dict.fromkeys(w for e in near for w in self._experts.candidates(e))
        return RouteAnswer(
            request_id=call.request_id,
            language=decision.language,
            language_probability=decision.language_probability,
            domain=decision.domain,
            domain_probabilities=decision.domain_probabilities,
            task=decision.task if decision.abstained is None else None,
            task_probabilities=decision.task_probabilities,
            confidence=decision.confidence,
            expert=ChosenExpert(model_key=preferred[0].base_model_key, adapter_name=preferred[0].adapter_name)
            if preferred
            else None,
            candidates=list(workers),
            abstained=decision.abstained,
            timings_ms=_timings(decision, 0.0, started),
        )

    async def classify(self, request: ClassifyRequest, call: Call) -> tuple[ClassifyAnswer, Expert | None]:
        """The answer, and the LLM expert that gave it (None for a probe and an abstention).

        Raises:
            MoleError: as errors.py says; an abstention only where the caller wants it as an error.
        """
        started = time.perf_counter()
        try:
            answer, expert = await self._within(self._classify(request, call, started), call)
        except MoleError as error:
            self._stats.failed[error.slug] += 1
            raise
        self._stats.answered(answer)
        return answer, expert

    async def _decide(self, request: ClassifyRequest) -> Decision:
        self._limits.check(request)
        options = request.options
        if options.task is not None:
            self._registry.task(options.task)  # an unknown one is refused before anything is computed
        decision = await self._gating.decide(
            request.text,
            request.description,
            language=options.language,
            task=options.task,
            via=options.via,
            served=self._experts.served,
        )
        reason = decision.abstained.reason if decision.abstained else None
        self._metrics.count_decision(decision.timings, decision.encoder_passes, reason)
        self._stats.encoder_passes += decision.encoder_passes
        return decision

    async def _classify(
        self, request: ClassifyRequest, call: Call, started: float
    ) -> tuple[ClassifyAnswer, Expert | None]:
        decision = await self._decide(request)
        if decision.abstained is None:
            self._check_language(decision)
        course = _Course(decision, list(decision.steps))
        abstained = decision.abstained
        while abstained is None:
            action = self._next(course)
            if action.kind == "accept":
                break
            if action.kind == "abstain":
                abstained = _unsure(decision)
                break
            await self._act(action, course, request, call)
        if abstained is not None and request.options.on_abstain == "error":
            raise AbstainedError(abstained.reason, abstained.detail, tuple(abstained.nearest_tasks))
        answer = _answer(request, course, abstained, call, started)
        return answer, None if abstained else course.expert

    def _check_language(self, decision: Decision) -> None:
        if decision.task is None:
            return
        served = self._registry.languages_of(decision.task)
        if served is not None and decision.language not in served:
            raise UnsupportedLanguageError(decision.task, decision.language, served)

    def _next(self, course: _Course) -> Action:
        def reachable(expert: Expert) -> bool:
            return expert not in course.failed and self._experts.reachable(expert)

        try:
            return self._gating.next_action(course.decision, course.observations, reachable=reachable)
        except NoWorkerError:
            if course.fault is not None:  # says more than that none is left
                raise course.fault from None
            raise

    async def _act(self, action: Action, course: _Course, request: ClassifyRequest, call: Call) -> None:
        """Asks the probe or an expert, and notes what it said or that it could not be asked."""
        began = time.perf_counter()
        if action.kind == PROBE or action.expert is None:
            course.answer = await self._gating.probe(course.decision)
            course.worker_id, course.expert = None, None
            label, choice = course.answer.label, PROBE
        else:
            try:
                course.worker_id, answer = await self._experts.classify(
                    action.expert, _expert_request(request, course.decision, action.expert, call), call
                )
            except FLEET_FAULTS as fault:
                course.failed.add(action.expert)
                course.fault = fault
                return
            course.answer, course.expert = answer, action.expert
            label, choice = answer.result, action.expert.name
        course.observations.append(
            Observation(action=action, confidence=course.answer.confidence, label=label)
        )
        course.steps.append(
            RouteStep(
                step="probe" if choice == PROBE and course.expert is None else "expert",
                choice=choice,
                probability=course.answer.confidence,
                ms=_ms_since(began),
            )
        )

    async def _within(self, work: Awaitable[T], call: Call) -> T:
        try:
            async with asyncio.timeout(max(call.deadline - time.monotonic(), 0.0)):
                return await work
        except TimeoutError as error:
            raise DeadlineError("The time for the whole request is up.") from error


def _answer(
    request: ClassifyRequest, course: _Course, abstained: Abstention | None, call: Call, started: float
) -> ClassifyAnswer:
    decision, answer = course.decision, course.answer
    everything = request.options.return_probabilities
    timings = _timings(decision, call.worker_ms, started)
    common: dict[str, Any] = {
        "request_id": call.request_id,
        "language": decision.language,
        "domain": decision.domain,
        "domain_probabilities": decision.domain_probabilities if everything else None,
        "routing_path": course.steps,
        "processing_time_ms": timings.total,
        "timings_ms": timings,
    }
    if abstained is not None or answer is None:
        return ClassifyAnswer(
            **common, task=None, result=None, confidence=decision.confidence, abstained=abstained,
            worker_id=None, model_key=None,
        )  # fmt: skip
    if isinstance(answer, ExpertAnswer):
        return ClassifyAnswer(
            **common,
            task=decision.task,
            result=answer.result,
            confidence=answer.confidence,
            probabilities=answer.probabilities if everything else None,
            entities=answer.entities,
            raw_response=answer.raw_response if request.options.return_raw_response else None,
            worker_id=course.worker_id,
            model_key=answer.model_key,
        )
    return ClassifyAnswer(
        **common,
        task=decision.task,
        result=answer.label,
        confidence=answer.confidence,
        probabilities=answer.probabilities if everything else None,
        worker_id=None,
        model_key=PROBE,
    )


def _expert_request(
    request: ClassifyRequest, decision: Decision, expert: Expert, call: Call
) -> ExpertRequest:
    return ExpertRequest(
        task_key=expert.task_key,
        text=request.text,
        language=decision.language,
        description=request.description,
        fields=request.fields,
        adapter_name=expert.adapter_name,
        request_id=call.request_id,
        return_probabilities=request.options.return_probabilities,
    )


def _unsure(decision: Decision) -> Abstention:
    """The router would rather not answer after what its experts said."""
    nearest = sorted(decision.task_probabilities, key=decision.task_probabilities.__getitem__, reverse=True)
    return Abstention(
        reason="low_confidence",
        detail="No expert of the task was sure enough of its answer.",
        nearest_tasks=nearest[:3],
    )


def _timings(decision: Decision, worker_ms: float, started: float) -> Timings:
    return decision.timings.model_copy(update={"worker": worker_ms, "total": _ms_since(started)})


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _anything(_expert: Expert) -> bool:
    return True

"""From a request to an answer: decide, act, observe, until the router accepts or abstains."""

from __future__ import annotations

import time

from app.services.course import PROBE, Course, Said, answer_of, margin, timings_of
from app.services.limits import Limits
from app.services.ports import TIME_IS_UP, AttemptTimeoutError, Call, Experts, Gating
from app.services.recording import Record, recorded
from app.services.telemetry.metrics import Metrics
from app.services.telemetry.stats import Stats
from app.services.waiting import FairGate
from app.services.within import within
from moe_router import tracing
from moe_router.contracts import (
    ChosenExpert,
    ClassifyRequest,
    RouteAnswer,
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
from moe_router.gating.decision import Decision
from moe_router.gating.task_router import Action, Observation
from moe_router.members import AnswerMembers, ExpertMembers
from moe_router.registry import Expert, Registry, TaskSpec

FLEET_FAULTS = (NoWorkerError, OverloadedError, WorkerAnswerError, AttemptTimeoutError)
"""After these another expert of the task may still answer."""


class Classification:
    """The same code decides for `/route` and `/classify`."""

    def __init__(
        self,
        gating: Gating,
        experts: Experts,
        registry: Registry,
        *,
        gate: FairGate,
        limits: Limits,
        default_timeout_s: float,
        metrics: Metrics,
        stats: Stats,
        record: Record | None = None,
    ) -> None:
        self._gating = gating
        self._experts = experts
        self._registry = registry
        self._gate = gate
        self._limits = limits
        self._default_timeout_s = default_timeout_s
        self._metrics = metrics
        self._stats = stats
        self._record = record

    def deadline(self, request: ClassifyRequest) -> float:
        """When the whole request ends, in seconds of time.monotonic()."""
        return time.monotonic() + (request.options.timeout_seconds or self._default_timeout_s)

    async def route(self, request: ClassifyRequest, call: Call) -> RouteAnswer:
        """The decision alone; no expert is called.

        Raises:
            MoleError: the request is wrong, or its time is up.
        """
        started = time.perf_counter()
        try:
            with within(call.deadline - time.monotonic()):
                decision = await self._decide(request, call)
        except TimeoutError as error:
            raise DeadlineError(TIME_IS_UP) from error
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
            timings_ms=Timings(**timings_of(decision, 0.0, started)),
        )

    async def classify(self, request: ClassifyRequest, call: Call) -> tuple[AnswerMembers, Expert | None]:
        """The answer, and the LLM expert that gave it (None for a probe and an abstention).

        Raises:
            MoleError: as errors.py says; an abstention only where the caller wants it as an error.
        """
        started = time.perf_counter()
        try:
            try:
                with within(call.deadline - time.monotonic()):
                    answer, expert = await self._classify(request, call, started)
            except TimeoutError as error:
                raise DeadlineError(TIME_IS_UP) from error
        except MoleError as error:
            self._stats.failed[error.slug] += 1
            raise
        self._stats.answered(answer)
        return answer, expert

    async def _decide(self, request: ClassifyRequest, call: Call) -> Decision:
        self._limits.check(request)
        task = request.options.task
        if task is not None:
            spec = self._registry.task(task)  # an unknown one is refused before anything is computed
            if spec.probe is None or task in self._gating.left_out:  # nothing will be encoded
                return await self._ask_gating(request)
        async with self._gate.place(call.caller):
            return await self._ask_gating(request)

    async def _ask_gating(self, request: ClassifyRequest) -> Decision:
        options = request.options
        with tracing.span("gating") as span:
            decision = await self._gating.decide(
                request.text,
                request.description,
                language=options.language,
                task=options.task,
                via=options.via,
                served=self._experts.served,
            )
            if span.recording:
                span.tell(
                    {
                        "mole.language": decision.language,
                        "mole.task": decision.task or "none",
                        "mole.confidence": decision.confidence,
                        "mole.encoder_passes": decision.encoder_passes,
                    }
                )
        reason = decision.abstained.reason if decision.abstained else None
        self._metrics.count_decision(decision.timings, decision.encoder_passes, reason)
        self._stats.encoder_passes += decision.encoder_passes
        return decision

    async def _classify(
        self, request: ClassifyRequest, call: Call, started: float
    ) -> tuple[AnswerMembers, Expert | None]:
        decision = await self._decide(request, call)
        course = Course(decision, list(decision.steps), abstained=decision.abstained)
        # Not self._registry: while the request waited at the gate, gating may have been given another one.
        registry = decision.router.registry
        with recorded(course, request, call, registry.tasks.get(decision.task or ""), self._record):
            if decision.abstained is None:
                self._check_language(decision)
                while (action := self._next(course)).kind in ("probe", "expert"):
                    course.actions.append(action)
                    if action.expert is None:
                        _read_probe(action, course)
                    else:
                        await self._ask(action, action.expert, course, request, call)
                course.end(action)
            abstained = course.abstained
            if abstained is not None and request.options.on_abstain == "error":
                raise AbstainedError(abstained.reason, abstained.detail, tuple(abstained.nearest_tasks))
        return answer_of(request, course, call, started), course.expert

    @staticmethod
    def _check_language(decision: Decision) -> None:
        if decision.task is None:
            return
        served = decision.router.registry.languages_of(decision.task)
        if served is not None and decision.language not in served:
            raise UnsupportedLanguageError(decision.task, decision.language, served)

    def _next(self, course: Course) -> Action:
        def reachable(expert: Expert) -> bool:
            return expert not in course.failed and self._experts.reachable(expert)

        try:
            return self._gating.next_action(course.decision, course.observations, reachable=reachable)
        except NoWorkerError:
            if course.fault is not None:  # says more than that none is left
                raise course.fault from None
        # Only now: no request waits for a worker that may be sick while another expert can answer.
        on_trial = self._experts.on_trial
        return self._gating.next_action(course.decision, course.observations, reachable=on_trial)

    async def _ask(
        self, action: Action, expert: Expert, course: Course, request: ClassifyRequest, call: Call
    ) -> None:
        """Asks an expert, and notes what it said or that it could not be asked."""
        began, hedges = time.perf_counter(), len(call.hedges)
        task = course.decision.router.registry.task(expert.task_key)
        wanted = _expert_request(request, course.decision, expert, task, call)
        try:
            worker_id, answer = await self._experts.classify(expert, task, wanted, call)
        except FLEET_FAULTS as fault:
            course.failed.append(expert)
            course.fault = fault
            return
        probe, alone = course.decision.probe, answer
        if probe is not None:
            answer = probe.heard_with(expert, alone)
        course.answers.append(Said(answer, expert, worker_id))
        lead, pooled = margin(answer.probabilities), answer is not alone
        course.observations.append(Observation(action, answer.result, answer.confidence, lead, pooled))
        course.steps += call.hedges[hedges:]
        course.note("expert", expert.name, answer.confidence, began)


def _anything(_expert: Expert) -> bool:
    return True


def _read_probe(action: Action, course: Course) -> None:
    answer, began = course.decision.probe, time.perf_counter()
    if answer is None:
        raise RuntimeError("the router chose a probe that has not answered")
    course.answers.append(Said(answer))
    course.observations.append(Observation(action, answer.label, answer.confidence, answer.margin))
    course.note(PROBE, PROBE, answer.confidence, began)


def _expert_request(
    request: ClassifyRequest, decision: Decision, expert: Expert, task: TaskSpec, call: Call
) -> ExpertMembers:
    # Where there is a choice left, the router judges the answer by its whole distribution.
    choice = task.probe is not None or len(task.experts) > 1
    wanted: ExpertMembers = {
        "task_key": expert.task_key,
        "text": request.text,
        "language": decision.language,
        "request_id": call.request_id,
        "return_probabilities": request.options.return_probabilities or choice,
    }
    if request.description is not None:
        wanted["description"] = request.description
    if request.fields is not None:
        wanted["fields"] = request.fields
    # Of several experts some may have no adapter, or the same one: the name tells them apart.
    name = expert.name if task.experts else expert.adapter_name
    if name is not None:
        wanted["adapter_name"] = name
    return wanted

"""Experts behind HTTP: asks the workers of a model in turn until one answers."""

from __future__ import annotations

import logging
import math
from functools import partial

import orjson

from app.services.ports import TIME_IS_UP, Call
from app.services.telemetry.metrics import Metrics
from app.services.waiting import Wait, WaitingRoom
from app.services.within import within
from app.services.workers import faults
from app.services.workers.answers import check_answer
from app.services.workers.budget import RetryBudget
from app.services.workers.bundles import Bundles
from app.services.workers.client import Question, WorkerClient
from app.services.workers.faults import Fault
from app.services.workers.fleet import Fleet
from app.services.workers.hedging import Hedging, attempt_span
from app.services.workers.prober import Prober
from app.services.workers.tried import Tried
from app.services.workers.worker import Worker
from app.storage.identity import opaque
from moe_router import tracing
from moe_router.contracts import ExpertAnswer, WorkerInfo
from moe_router.errors import DeadlineError, MoleError, NoWorkerError, WorkerAnswerError
from moe_router.mapping import WorkerMapping
from moe_router.members import ExpertMembers
from moe_router.registry import Expert, Registry, TaskSpec

logger = logging.getLogger(__name__)

ONE_CALLERS_SHARE = 0.75
"""Of the places at a model's workers: another caller must find one free, not wait here and there again."""
GRACE_SHARE, GRACE_S = 0.05, 0.25
"""How much less time a worker is told than we wait: the smaller of a share of it and seconds."""


class HttpExperts:
    """The coordinator's side of the fleet."""

    def __init__(
        self,
        fleet: Fleet,
        client: WorkerClient,
        prober: Prober,
        metrics: Metrics,
        *,
        attempt_timeout_s: float,
        max_waiting: int = 1024,
        hedge_after_s: float | None = None,
    ) -> None:
        self.fleet = fleet
        self._client = client
        self._bundles = Bundles(client)
        self._prober = prober
        self._metrics = metrics
        self._attempt_timeout_s = attempt_timeout_s
        self._budget = RetryBudget()
        self._hedging = Hedging(hedge_after_s, self._budget, metrics) if hedge_after_s is not None else None
        self._registry: Registry | None = None
        self._max_waiting = max_waiting
        self._rooms: dict[str, WaitingRoom[Worker]] = {}
        prober.changed = self._poke
        prober.judge = self._judge
        prober.tried = lambda worker, outcome: metrics.count_trial(worker.worker_id, outcome)
        prober.viewed = lambda worker: metrics.count_view(worker.worker_id, worker.view)

    def served(self, model_key: str) -> bool:
        """Whether the mapping names a worker for the model."""
        return self.fleet.holds(model_key)

    def reachable(self, expert: Expert) -> bool:
        """Whether a worker can be tried now."""
        return self.fleet.reachable(expert.base_model_key, expert.task_key)

    def on_trial(self, expert: Expert) -> bool:
        """Whether a call under way decides in a moment if a worker can be tried."""
        return self.fleet.on_trial(expert.base_model_key, expert.task_key)

    def candidates(self, expert: Expert) -> list[str]:
        """Ids of the workers to try, best first."""
        return [w.worker_id for w in self.fleet.candidates(expert.base_model_key, expert.task_key)]

    def workers(self) -> list[WorkerInfo]:
        """Every worker of the mapping."""
        return self.fleet.infos()

    def waiting(self) -> dict[str, int]:
        """Requests that wait for a worker to have room, by model key."""
        return {key: room.waiting for key, room in self._rooms.items()}

    async def use(self, registry: Registry, mapping: WorkerMapping) -> None:
        """Takes other files and looks at the new workers at once."""
        if registry != self._registry:
            self._prober.expect_tasks()
        self._registry = registry
        self.fleet.use(mapping)
        self._rooms = {key: room for key, room in self._rooms.items() if room.busy or self.served(key)}
        self._poke()
        self._prober.wake()

    async def start(self) -> None:
        """Begins to probe."""
        self._prober.start()

    async def aclose(self) -> None:
        """Stops probing and closes the connections."""
        await self._prober.aclose()
        await self._client.aclose()

    async def classify(
        self, expert: Expert, task: TaskSpec, request: ExpertMembers, call: Call
    ) -> tuple[str, ExpertAnswer]:
        """Asks one worker after another; a fault that another may mend moves on to the next.

        Raises:
            MoleError: the last fault, where no worker mends it.
        """
        body = orjson.dumps(request)
        self._budget.request()
        tried = Tried()
        last: Fault | None = None
        room = self._room(expert.base_model_key)
        while True:
            if tried and not self._budget.allows(len(tried)):
                raise self._refusal(expert, last) from last
            take = partial(self._take, expert, call.caller, tried, last)
            worker = room.try_enter(call.caller, take)
            if worker is None:
                want = (expert.task_key, *tried.want) if tried else expert.task_key
                worker = await room.wait(call.caller, take, want)
            tried.add(worker)
            try:
                if self._hedging is not None and call.alone:
                    send = partial(
                        self._attempt, body=body, request=request, task=task, call=call, tried=tried
                    )
                    take = partial(self._take, expert, call.caller, tried, None)
                    return await self._hedging.ask(worker, send, take, room, tried, call)
                with attempt_span(worker):
                    return worker.worker_id, await self._attempt(worker, body, request, task, call, tried)
            except Fault as fault:
                if not fault.mendable:
                    raise fault.error from fault
                self._metrics.count_failover(fault.outcome)
                last = fault
            finally:
                room.leave(call.caller)

    def _judge(self, answer: ExpertAnswer, request: ExpertMembers, worker_id: str) -> None:
        """A trial must be answered as well as any request: a worker that lies must not come back by it."""
        task = self._registry.tasks.get(request["task_key"]) if self._registry is not None else None
        if task is not None:
            check_answer(answer, request, task, worker_id)

    def _room(self, model_key: str) -> WaitingRoom[Worker]:
        """Where requests wait while all workers of the model are full."""
        if model_key not in self._rooms:
            full = partial(self.fleet.full, model_key)
            self._rooms[model_key] = WaitingRoom(self._max_waiting, Worker.give_back, full)
        return self._rooms[model_key]

    def _poke(self) -> None:
        for room in self._rooms.values():
            room.poke()

    def _take(self, expert: Expert, caller: str, tried: Tried, last: Fault | None) -> Worker | Wait:
        """The worker to ask next, a call at it begun; or why it must be waited for.

        Raises:
            MoleError: there is none left.
        """
        usable = self.fleet.candidates(expert.base_model_key, expert.task_key)
        left = [worker for worker in usable if worker not in tried] if tried else usable
        found = None
        for worker in left:
            if not worker.full:
                found = worker
                break
        if found is not None and self._has_its_share(caller, usable, expert.base_model_key):
            return Wait.ENOUGH
        # A connection that was reset may only have been stale: one more try where there is no replica.
        if not left and last is not None and last.outcome == "reset" and len(tried) == 1:
            found = tried.first
        if found is not None:
            found.take(self.fleet.clock(), caller)
            return found
        # Who has a fault to tell waits for no trial: the worker may be as sick as the one that was asked.
        if not left and (last is not None or not self.on_trial(expert)):
            raise self._refusal(expert, last) from last
        return Wait.FULL

    def _has_its_share(self, caller: str, usable: list[Worker], model_key: str) -> bool:
        """Whether the caller holds as much of the usable workers as one may.

        What hangs at a worker that is down counts against nobody: the others have all their places.
        """
        places = 0
        for worker in usable:
            places += worker.max_in_flight
        share = math.ceil(places * ONE_CALLERS_SHARE)
        if self._room(model_key).held(caller) < share:  # of all workers: seldom more, and known already
            return False
        return sum(worker.held.get(caller, 0) for worker in usable) >= share

    def _refusal(self, expert: Expert, last: Fault | None) -> MoleError:
        if last is not None:
            return last.error
        return NoWorkerError(f"No worker that holds {expert.base_model_key} can be reached now.")

    async def _attempt(
        self,
        worker: Worker,
        body: bytes,
        request: ExpertMembers,
        task: TaskSpec,
        call: Call,
        tried: Tried,
    ) -> ExpertAnswer:
        clock = self.fleet.clock
        started = clock()
        left_s = call.deadline - started
        if left_s <= 0:
            worker.give_back(call.caller)
            raise DeadlineError(TIME_IS_UP)
        hasty = left_s <= self._attempt_timeout_s
        timeout_s = (
            self._part(left_s, worker, request["task_key"], tried) if hasty else self._attempt_timeout_s
        )
        # Where time is left for another, the worker is to say itself that it was too slow: then it lives.
        told_s = timeout_s - min(timeout_s * GRACE_SHARE, GRACE_S) if timeout_s < left_s else timeout_s
        outcome: faults.Outcome = "cancelled"
        bound = within(timeout_s)
        try:
            worker.calls.add(bound)
            with bound:
                question = Question(
                    body, call.request_id, opaque(call.caller), told_s, tracing.outgoing(call.trace)
                )
                if call.bundled and len(tried) == 1:  # what a retry shared may be why it is one
                    answer = await self._bundles.ask(worker, question, request["task_key"])
                else:
                    answer = await self._client.classify(worker, question)
            check_answer(answer, request, task, worker.worker_id)
            outcome = "ok"
            worker.breaker.succeeded(started)
            worker.answered(clock(), started)
            return answer
        except TimeoutError as error:
            outcome = "timeout"
            # Of one that was cut its probes say what it is.
            ejects = "no" if bound.was_cut else _blame(worker, started, timeout_s, hasty=hasty)
            fault = self._note(worker, faults.timed_out(worker.worker_id, ejects), started)
            if timeout_s >= left_s and not bound.was_cut:
                raise DeadlineError(TIME_IS_UP) from error
            raise fault from error
        except WorkerAnswerError as error:
            outcome = "invalid"
            raise self._note(worker, faults.invalid(error), started) from error
        except Fault as fault:
            outcome = fault.outcome
            if outcome == "timeout":  # it lives and says so itself
                fault.ejects = _blame(worker, started, clock() - started, hasty=True)
            raise self._note(worker, fault, started) from fault.__cause__
        finally:
            if outcome == "cancelled":
                worker.breaker.abandoned(started)
            worker.calls.discard(bound)
            worker.end(call.caller)
            spent_s = clock() - started
            call.worker_ms += spent_s * 1000
            self._metrics.count_worker_call(worker.worker_id, outcome, spent_s)

    def _part(self, left_s: float, worker: Worker, task_key: str, tried: Tried) -> float:
        """What the worker gets of the time left, in seconds: where another is free, enough remains for it."""
        now = self.fleet.clock()
        for other in self.fleet.of(worker.model_key):
            if other.full or other in tried or not (other.available(now) and other.serves(task_key)):
                continue
            ample_s = worker.ample_s or other.ample_s
            if ample_s is not None:
                return min(left_s, max(left_s / 2, ample_s))
        return left_s

    def _note(self, worker: Worker, fault: Fault, began: float) -> Fault:
        """Marks the worker as the fault says, once."""
        if fault.noted:
            worker.breaker.abandoned(began)
            return fault
        fault.noted = True
        if fault.outcome == "rejected":  # a sound answer: the request was at fault
            worker.breaker.succeeded(began)
            return fault
        if fault.ejects == "no":
            worker.breaker.abandoned(began)
            return fault
        reason = f"{fault.outcome}: {fault.error.detail}"
        opened = worker.breaker.failed(
            began, self.fleet.clock(), reason, at_once=fault.ejects == "at once", for_s=fault.retry_after_s
        )
        if opened:
            self._metrics.count_ejection(worker.worker_id, fault.outcome)
            logger.warning("worker %s is ejected: %s", worker.worker_id, reason)
            self._prober.wake()
        return fault


def _blame(worker: Worker, began: float, waited_s: float, *, hasty: bool) -> faults.Ejects:
    """What a call that ran out of its time says of its worker."""
    if worker.answered_at >= began:  # the call was slow, not the worker
        return "no"
    if not hasty:
        return "at once"
    return "if repeated" if worker.hung(began, waited_s) else "no"

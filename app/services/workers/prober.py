"""Looks at every worker again and again: is it ready, what does it serve, can it be used again."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

import orjson
from pydantic import ValidationError

from app.services.workers.client import Question, WorkerClient
from app.services.workers.faults import Fault
from app.services.workers.fleet import Fleet
from app.services.workers.worker import ProbeView, Worker
from moe_router.contracts import ExpertAnswer, ExpertRequest
from moe_router.errors import WorkerAnswerError
from moe_router.members import ExpertMembers

logger = logging.getLogger(__name__)

ROUNDS_BETWEEN_TASKS = 10
"""A worker's list of tasks changes only with an edit of its registry."""
ROUNDS_AFTER_EDIT = 120
"""In which each round reads that list: a worker loads what is new for seconds, or for a minute or two."""
TRIAL_TIMEOUT_S = 15.0
TRIAL_TEXT = "Hello."


class Prober:
    """One background task; a fault in a round is logged and the next round comes all the same."""

    def __init__(self, fleet: Fleet, client: WorkerClient, *, interval_s: float, timeout_s: float) -> None:
        self._fleet = fleet
        self._client = client
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._round = 0
        self._watched_until = 0
        self._trials: dict[Worker, asyncio.Task[None]] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when a worker may have become usable, or unusable."""
        self.judge: Callable[[ExpertAnswer, ExpertMembers, str], None] = lambda *_: None
        """Raises a WorkerAnswerError where a worker's answer to a trial is not valid."""
        self.tried: Callable[[Worker, str], None] = lambda *_: None
        """Called with the outcome of a trial."""
        self.viewed: Callable[[Worker], None] = lambda _: None
        """Called when a probe sees a worker otherwise than the one before."""

    def start(self) -> None:
        """Begins to probe."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Begins the next round now."""
        self._wake.set()

    def expect_tasks(self) -> None:
        """The registry was edited: what workers serve is read in each of the next rounds."""
        self._watched_until = self._round + ROUNDS_AFTER_EDIT

    async def aclose(self) -> None:
        """Stops probing."""
        tasks = [task for task in (self._task, *self._trials.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.probe_all()
            except Exception:
                logger.exception("a round of probes failed")
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def probe_all(self) -> None:
        """One round, all workers at once."""
        self._round += 1
        await asyncio.gather(*(self._probe(worker) for worker in self._fleet.all))
        self.changed()

    async def _probe(self, worker: Worker) -> None:
        before = worker.view
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._look(worker)
        except TimeoutError:
            worker.unanswered(f"its health did not answer within {self._timeout_s:g} s")
        except Fault as fault:
            if fault.outcome == "refused":  # nobody is there; what it still finishes may come all the same
                worker.probed("down", fault.error.detail)
            else:
                worker.unanswered(fault.error.detail)
        if worker.view != before:
            self.viewed(worker)
            logger.info("worker %s: %s (%s)", worker.worker_id, worker.view, worker.view_reason or "ready")

    async def _look(self, worker: Worker) -> None:
        status, health = await self._client.health(worker)
        if health is None:
            worker.probed("down", f"its health answered with status {status} and no body of a worker")
            return
        if health.model_key != worker.model_key:
            worker.refuse(f"it holds the model {health.model_key[:200]!r}, not {worker.model_key!r}")
            return
        if health.status != "ready" or status != 200:
            views: dict[str, ProbeView] = {"loading": "loading", "draining": "draining"}
            detail = f"{health.status}, {health.progress:.0%}: {(health.detail or '')[:300]}"
            worker.probed(views.get(health.status, "down"), detail, health.queue_depth)
            return
        if self._must_read_tasks(worker):
            code, tasks = await self._client.tasks(worker)
            if tasks is None:
                reason = "it refuses our token" if code in (401, 403) else f"its tasks answered {code}"
                worker.refuse(reason)
                return
            worker.told_tasks(tasks)
            if tasks.model_key != worker.model_key:
                return
        worker.probed("ready", None, health.queue_depth)
        self._begin_trial(worker)

    def _must_read_tasks(self, worker: Worker) -> bool:
        """Whether they are not known, may have changed, or one of them is to be tried."""
        if worker.tasks is None or worker.breaker.open_until is not None:
            return True
        return self._round <= self._watched_until or self._round % ROUNDS_BETWEEN_TASKS == 0

    def _begin_trial(self, worker: Worker) -> None:
        """A healthy probe closes no breaker; where one is half open, a small real request decides.

        It does so beside a caller's request on trial, too: that one may be long, and others wait for its end.
        """
        now, opens = self._fleet.clock(), worker.breaker.open_until
        if opens is None or now < opens or worker in self._trials or not worker.tasks:
            return
        worker.breaker.begin(now)
        trial = self._trials[worker] = asyncio.create_task(self._try(worker, now))
        trial.add_done_callback(lambda _: self._trials.pop(worker))

    async def _try(self, worker: Worker, began: float) -> None:
        try:
            request = _trial(worker)
            async with asyncio.timeout(TRIAL_TIMEOUT_S):
                question = Question(
                    orjson.dumps(request), f"trial-{uuid.uuid4().hex}", "prober", TRIAL_TIMEOUT_S, {}
                )
                answer = await self._client.classify(worker, question)
            self.judge(answer, request, worker.worker_id)
        except WorkerAnswerError as error:
            self.tried(worker, "invalid")
            worker.breaker.failed(began, self._fleet.clock(), f"invalid: {error.detail}", at_once=True)
        except ValidationError:
            self.tried(worker, "invalid")
            reason = "invalid: its tasks name a language or an adapter that no request can ask for"
            worker.breaker.failed(began, self._fleet.clock(), reason, at_once=True)
        except TimeoutError:
            self.tried(worker, "timeout")
            reason = f"timeout: no answer to a trial within {TRIAL_TIMEOUT_S:g} s"
            worker.breaker.failed(began, self._fleet.clock(), reason, at_once=True)
        except Fault as fault:
            self.tried(worker, fault.outcome)
            if fault.outcome == "rejected":  # a sound answer: the trial lacked a field of the template
                worker.breaker.succeeded(began)
                return
            if fault.ejects == "no":  # it answered soundly that this very question cannot be served now
                worker.breaker.abandoned(began)
                return
            reason = f"{fault.outcome}: {fault.error.detail}"
            worker.breaker.failed(began, self._fleet.clock(), reason, at_once=True, for_s=fault.retry_after_s)
        except BaseException:
            worker.breaker.abandoned(began)
            raise
        else:
            self.tried(worker, "ok")
            worker.breaker.succeeded(began)
            logger.info("worker %s is back", worker.worker_id)
        finally:
            self.changed()


def _trial(worker: Worker) -> ExpertMembers:
    """The next of what the worker says it serves: what one expert cannot answer now another may.

    Raises:
        ValidationError: no request can ask for it.
    """
    questions: list[tuple[str, str, str | None]] = []
    for task in worker.tasks or ():
        languages = task.languages or ["en"]
        named = [(task.task_key, languages[0], adapter) for adapter in task.adapters]
        questions += named or [(task.task_key, language, None) for language in languages]
    task_key, language, adapter = questions[worker.trials % len(questions)]
    worker.trials += 1
    request: ExpertMembers = {
        "task_key": task_key, "text": TRIAL_TEXT, "language": language, "return_probabilities": False,
    }  # fmt: skip
    if adapter is not None:
        request["adapter_name"] = adapter
    ExpertRequest.model_validate(request)
    return request

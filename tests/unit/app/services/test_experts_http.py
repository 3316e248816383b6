"""Attempts over candidates, with a transport that answers as it is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from app.services.experts_http import HttpExperts
from app.services.ports import Call
from app.services.telemetry.metrics import Metrics
from app.services.workers import worker
from app.services.workers.client import WorkerClient
from app.services.workers.fleet import Fleet
from app.services.workers.prober import Prober
from app.services.workers.tried import Tried
from moe_router.errors import (
    DeadlineError,
    MissingFieldError,
    MoleError,
    NoWorkerError,
    OverloadedError,
    WorkerAnswerError,
)
from moe_router.registry import Registry
from tests.stubs import files
from tests.stubs.http import HttpxHttp
from tests.stubs.serving import mapping, question, registry, until

A, B, C = "http://a:1", "http://b:1", "http://c:1"
Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]
TASK = registry().task(files.SENTIMENT)
GOOD = {
    "result": "positive",
    "confidence": 0.9,
    "worker_id": "w",
    "model_key": files.MODEL,
    "adapter_name": "fin",
    "processing_time_ms": 1.0,
}


class Scene:
    """Workers by host; a host answers well where nothing else is said."""

    def __init__(
        self,
        *urls: str,
        attempt_timeout_s: float = 5.0,
        max_in_flight: int = 8,
        eject_s: float = 60,
        hedge_after_s: float | None = None,
    ) -> None:
        self.answers: dict[str, Answer] = {}
        self.calls: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: httpx.Headers | None = None
        self.served = [files.SENTIMENT]
        client = WorkerClient(HttpxHttp(httpx.MockTransport(self._handle)), "secret")
        self.fleet = Fleet(eject_after=2, eject_s=eject_s, max_in_flight=max_in_flight)
        self.prober = Prober(self.fleet, client, interval_s=60, timeout_s=1)
        self.metrics = Metrics()
        self.experts = HttpExperts(
            self.fleet,
            client,
            self.prober,
            self.metrics,
            attempt_timeout_s=attempt_timeout_s,
            hedge_after_s=hedge_after_s,
        )
        self.registry = registry()
        self.mapping = mapping(*urls)

    async def open(self) -> Scene:
        await self.experts.use(self.registry, self.mapping)
        for each in self.fleet.all:
            each.probed("ready")
        return self

    async def ask(self, timeout_s: float = 10.0, caller: str = "") -> tuple[str, str]:
        expert = self.registry.experts_for(files.SENTIMENT, "en")[0]
        request = question("Sales rose.")
        call = Call("id-1", time.monotonic() + timeout_s, {"traceparent": "00-1-2-01"}, caller)
        worker_id, answer = await self.experts.classify(expert, TASK, request, call)
        assert call.worker_ms > 0
        return worker_id, answer.result

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers.get(request.url.host)
        if request.method == "GET":
            return await self._probed(request, answer)
        self.calls.append(request.url.host)
        self.bodies.append(json.loads(request.content))
        self.headers = request.headers
        return await answer(request) if answer else httpx.Response(200, json=GOOD)

    async def _probed(self, request: httpx.Request, answer: Answer | None) -> httpx.Response:
        if answer is not None and answer is not hanging:
            return await answer(request)
        if request.url.path.endswith("/tasks"):
            tasks = [{"task_key": k, "languages": None, "labels": [], "adapters": []} for k in self.served]
            return httpx.Response(200, json={"worker_id": "w", "model_key": files.MODEL, "tasks": tasks})
        health = {"status": "ready", "worker_id": "w", "model_key": files.MODEL, "progress": 1}
        return httpx.Response(200, json={**health, "queue_depth": 0})


def status(code: int, slug: str = "", **headers: str) -> Answer:
    async def answer(_request: httpx.Request) -> httpx.Response:
        body = {"type": f"/problems/{slug}", "detail": "what the worker said"}
        return httpx.Response(code, json=body, headers=headers)

    return answer


def raising(error: Exception) -> Answer:
    async def answer(_request: httpx.Request) -> httpx.Response:
        raise error

    return answer


async def hanging(_request: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_call_carries_what_the_worker_needs() -> None:
    scene = await Scene(A).open()
    assert await scene.ask(timeout_s=2) == ("worker-0", "positive")
    assert scene.headers is not None
    assert scene.headers["authorization"] == "Bearer secret"
    assert scene.headers["x-request-id"] == "id-1"
    assert scene.headers["traceparent"] == "00-1-2-01"
    assert 0 < int(scene.headers["x-mole-timeout-ms"]) <= 2000
    assert scene.bodies[0]["text"] == "Sales rose."
    assert scene.fleet.all[0].outstanding == 0
    assert len(scene.fleet.all[0].latencies_ms) == 1


@pytest.mark.parametrize(
    "fault",
    [
        raising(httpx.ConnectError("refused")),
        raising(httpx.ReadError("reset")),
        raising(httpx.RemoteProtocolError("rubbish")),
        status(500),
        status(503),
        status(200),
        hanging,
    ],
)
async def test_another_replica_mends_every_fault(fault: Answer) -> None:
    scene = await Scene(A, B, attempt_timeout_s=0.05).open()
    scene.answers["a"] = fault
    for _ in range(8):
        assert await scene.ask() == ("worker-1", "positive")
    assert scene.calls.count("a") <= 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (raising(httpx.ConnectError("refused")), NoWorkerError),
        (raising(httpx.ReadError("reset")), NoWorkerError),
        (status(500), WorkerAnswerError),
        (status(503), NoWorkerError),
        (status(503, "overloaded"), OverloadedError),
        (hanging, DeadlineError),
    ],
)
async def test_without_a_replica_the_fault_is_named(fault: Answer, error: type[MoleError]) -> None:
    scene = await Scene(A, attempt_timeout_s=0.05).open()
    scene.answers["a"] = fault
    with pytest.raises(error):
        await scene.ask()


async def test_a_refused_connection_ejects_and_the_next_request_is_not_tried() -> None:
    scene = await Scene(A).open()
    scene.answers["a"] = raising(httpx.ConnectError("refused"))
    for _ in range(3):
        with pytest.raises(NoWorkerError):
            await scene.ask()
    assert scene.calls == ["a"]
    assert scene.experts.workers()[0].state == "ejected"
    assert not scene.experts.reachable(scene.registry.experts_for(files.SENTIMENT, "en")[0])


async def test_single_errors_eject_nobody() -> None:
    scene = await Scene(A).open()
    scene.answers["a"] = status(500)
    with pytest.raises(WorkerAnswerError):
        await scene.ask()
    assert scene.experts.workers()[0].state == "healthy"
    with pytest.raises(WorkerAnswerError):
        await scene.ask()
    assert scene.experts.workers()[0].state == "ejected"


@pytest.mark.parametrize("depth", [10**400, -1, "many"])
async def test_a_worker_that_lies_about_its_queue_costs_no_metrics(depth: object) -> None:
    async def lying(request: httpx.Request) -> httpx.Response:
        honest = await scene._probed(request, None)
        told = json.loads(honest.content)
        return httpx.Response(200, text=json.dumps(told | {"queue_depth": depth}))

    scene = await Scene(A).open()
    scene.answers["a"] = lying
    await scene.prober.probe_all()
    [worker] = scene.experts.workers()
    assert (worker.state, worker.queue_depth) == ("down", None)


class Killable:
    """Holds the requests that come, until it is killed; a new process answers well, or holds them, too."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.holds = True
        self.death = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return await self.scene._probed(request, None)
        if self.holds and b"Sales rose." in request.content:  # no trial
            await self.death.wait()
            raise httpx.ReadError("reset")
        return httpx.Response(200, json=GOOD)

    def kill(self, *, holds: bool) -> None:
        self.holds = holds
        self.death.set()
        self.death = asyncio.Event()


async def test_a_request_outlives_the_restart_of_each_replica_in_turn() -> None:
    scene = await Scene(A, B, eject_s=0.01).open()
    a, b = scene.answers["a"], scene.answers["b"] = Killable(scene), Killable(scene)
    scene.fleet.all[1].foreign_queue = 5  # asked second
    asked = asyncio.create_task(scene.ask())
    await until(lambda: scene.calls == ["a"])
    a.kill(holds=False)
    await until(lambda: scene.calls == ["a", "b"])
    await asyncio.sleep(0.02)
    await scene.prober.probe_all()
    await until(lambda: scene.experts.workers()[0].state == "healthy")
    b.kill(holds=True)
    assert await asked == ("worker-0", "positive")
    assert [call for call in scene.calls if call == "b"] == ["b"]
    await scene.prober.aclose()


async def test_what_kills_whoever_is_asked_is_not_asked_for_ever() -> None:
    scene = await Scene(A, eject_s=0.01).open()
    a = scene.answers["a"] = Killable(scene)
    asked = asyncio.create_task(scene.ask())
    await until(lambda: len(scene.calls) == 1)
    a.kill(holds=True)  # a reset connection of the only worker is tried once more
    await until(lambda: len(scene.calls) == 2)
    await asyncio.sleep(0.02)
    await scene.prober.probe_all()
    a.kill(holds=True)
    with pytest.raises(NoWorkerError):
        await asked
    await scene.prober.aclose()


def test_a_worker_that_came_back_counts_as_not_asked_once() -> None:
    scene = Scene(A, B)
    scene.fleet.use(scene.mapping)
    one, other = scene.fleet.all
    tried, same = Tried(), Tried()
    for asked in (tried, same):
        asked.add(one)
    assert one in tried
    assert other not in tried
    assert tried.want == same.want
    one.probed("down", "gone")
    assert one in tried
    one.probed("ready")
    assert one not in tried
    tried.add(one)
    assert tried.want != same.want
    one.probed("loading")
    one.probed("ready")
    assert one in tried
    assert one not in same
    assert (len(tried), tried.first) == (2, one)


async def test_a_stale_connection_is_tried_once_more_on_the_same_worker() -> None:
    scene = await Scene(A).open()
    once = iter([raising(httpx.ReadError("reset"))])

    async def first_reset(request: httpx.Request) -> httpx.Response:
        answer = next(once, None)
        return await answer(request) if answer else httpx.Response(200, json=GOOD)

    scene.answers["a"] = first_reset
    assert await scene.ask() == ("worker-0", "positive")
    assert scene.experts.workers()[0].state == "healthy"


async def test_the_callers_mistake_is_told_at_once() -> None:
    scene = await Scene(A, B).open()
    scene.answers["a"] = scene.answers["b"] = status(400, "missing-field")
    with pytest.raises(MissingFieldError, match="what the worker said"):
        await scene.ask()
    assert len(scene.calls) == 1
    assert {w.state for w in scene.experts.workers()} == {"healthy"}


@pytest.mark.parametrize(
    "behind",
    [(400, "unknown-task"), (400, "unknown-expert"), (400, "unsupported-language"), (503, "no-worker")],
)
async def test_what_a_worker_does_not_have_yet_is_asked_of_another(behind: tuple[int, str]) -> None:
    scene = await Scene(A, B).open()
    scene.answers["a"] = status(*behind)
    scene.fleet.all[1].foreign_queue = 5  # asked second
    for _ in range(4):
        assert await scene.ask() == ("worker-1", "positive")
    assert scene.calls.count("a") == 4
    assert {w.state for w in scene.experts.workers()} == {"healthy"}
    scene.answers["b"] = status(*behind)
    with pytest.raises(NoWorkerError) as caught:
        await scene.ask()
    assert ("what the worker said" in caught.value.detail) == (behind != (503, "no-worker"))


async def test_a_short_deadline_is_no_fault_of_the_worker() -> None:
    scene = await Scene(A).open()
    scene.answers["a"] = hanging
    with pytest.raises(DeadlineError):
        await scene.ask(timeout_s=0.05)
    with pytest.raises(DeadlineError):
        await scene.ask(timeout_s=-1)
    assert scene.experts.workers()[0].state == "healthy"
    assert scene.fleet.all[0].outstanding == 0


def known(scene: Scene, p95_ms: float = 1.0) -> None:
    for each in scene.fleet.all:
        each.p95_ms = p95_ms


async def test_a_hung_worker_leaves_time_for_another_and_is_ejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LEAST_AMPLE_S", 0.01)
    scene = await Scene(A, B).open()
    known(scene)
    scene.answers["a"] = hanging
    for _ in range(20):
        assert await scene.ask(timeout_s=0.5) == ("worker-1", "positive")
    assert scene.calls.count("a") == 2
    assert scene.experts.workers()[0].state == "ejected"


async def test_a_hung_worker_without_a_replica_is_ejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LEAST_AMPLE_S", 0.01)
    scene = await Scene(A).open()
    known(scene)
    scene.answers["a"] = hanging
    for _ in range(2):
        with pytest.raises(DeadlineError):
            await scene.ask(timeout_s=0.05)
    assert scene.experts.workers()[0].state == "ejected"


async def test_haste_ejects_nobody_who_answers_others_or_had_no_ample_time() -> None:
    scene = await Scene(A).open()
    known(scene, p95_ms=1000)
    scene.answers["a"] = hanging
    for _ in range(3):
        with pytest.raises(DeadlineError):
            await scene.ask(timeout_s=0.02)
    assert scene.experts.workers()[0].state == "healthy"
    each = scene.fleet.all[0]
    each.p95_ms, each.answered_at = 1, 10.0
    assert each.hung(began=11, waited_s=5)
    assert not each.hung(began=9, waited_s=5)


async def test_one_slow_call_ejects_nobody_who_answers_others() -> None:
    scene = await Scene(A, attempt_timeout_s=0.1).open()
    answers = iter([hanging])

    async def first_hangs(request: httpx.Request) -> httpx.Response:
        answer = next(answers, None)
        return await answer(request) if answer else httpx.Response(200, json=GOOD)

    scene.answers["a"] = first_hangs
    slow = asyncio.create_task(scene.ask())
    await until(lambda: scene.calls == ["a"])
    assert await scene.ask() == ("worker-0", "positive")
    with pytest.raises(DeadlineError):
        await slow
    assert scene.experts.workers()[0].state == "healthy"
    scene.answers["a"] = hanging
    with pytest.raises(DeadlineError):
        await scene.ask()
    assert scene.experts.workers()[0].state == "ejected", "it answered nobody meanwhile"


async def test_a_worker_can_say_itself_that_it_was_too_slow() -> None:
    scene = await Scene(A, attempt_timeout_s=4).open()
    await scene.ask(timeout_s=10)
    assert scene.headers is not None
    assert scene.headers["x-mole-timeout-ms"] == "3800"
    scene.answers["a"] = status(504, "deadline-exceeded")
    for _ in range(3):
        with pytest.raises(DeadlineError):
            await scene.ask(timeout_s=10)
    assert scene.experts.workers()[0].state == "healthy"


async def test_a_worker_that_is_too_slow_for_everybody_is_ejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LEAST_AMPLE_S", 0.0)
    scene = await Scene(A).open()
    known(scene, p95_ms=0.001)
    scene.answers["a"] = status(504, "deadline-exceeded")
    for _ in range(2):
        with pytest.raises(DeadlineError):
            await scene.ask()
    assert scene.experts.workers()[0].state == "ejected"


async def test_a_hung_worker_holds_no_more_than_its_bound() -> None:
    scene = await Scene(A, B, max_in_flight=2).open()
    scene.answers["a"] = hanging
    scene.fleet.all[0].outstanding = 2
    assert await scene.ask() == ("worker-1", "positive")
    scene.fleet.all[1].outstanding = 2
    waits = asyncio.create_task(scene.ask())
    await asyncio.sleep(0)
    assert not waits.done()
    scene.fleet.all[1].outstanding = 1
    await scene.prober.probe_all()
    assert await waits == ("worker-1", "positive")


async def test_one_caller_leaves_places_to_others() -> None:
    scene = await Scene(A, max_in_flight=4).open()
    scene.answers["a"] = hanging
    flood = [asyncio.create_task(scene.ask(caller="flood")) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert scene.fleet.all[0].outstanding == 3
    quiet = asyncio.create_task(scene.ask(caller="quiet"))
    await asyncio.sleep(0.01)
    assert scene.fleet.all[0].outstanding == 4
    for task in (*flood, quiet):
        task.cancel()
    await asyncio.gather(*flood, quiet, return_exceptions=True)
    assert scene.fleet.all[0].outstanding == 0


async def test_what_hangs_at_a_worker_that_is_down_leaves_its_caller_the_others() -> None:
    scene = await Scene(A, B, max_in_flight=4).open()
    a, b = scene.fleet.all
    gate = asyncio.Event()

    async def slow(_request: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(200, json=GOOD)

    scene.answers["a"], scene.answers["b"] = hanging, slow
    flood = [asyncio.create_task(scene.ask(caller="flood")) for _ in range(6)]
    await until(lambda: (a.outstanding, b.outstanding) == (3, 3))
    a.probed("down", "stopped")
    gate.set()
    await until(lambda: b.outstanding == 0)
    more = asyncio.create_task(scene.ask(caller="flood"))
    await until(more.done, seconds=2)
    assert more.result() == ("worker-1", "positive")
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    assert a.held == b.held == {}


async def test_who_waits_for_a_full_worker_is_told_when_it_is_down() -> None:
    scene = await Scene(A, max_in_flight=1).open()
    scene.fleet.all[0].outstanding = 1
    waits = asyncio.create_task(scene.ask())
    await asyncio.sleep(0)
    scene.answers["a"] = raising(httpx.ConnectError("refused"))
    await scene.prober.probe_all()
    with pytest.raises(NoWorkerError):
        await waits


async def test_calls_at_a_worker_whose_probes_fail_again_and_again_go_to_another() -> None:
    scene = await Scene(A, B).open()
    lost, other = scene.fleet.all
    other.foreign_queue = 5  # so that the lost one is asked first
    scene.answers["a"] = hanging
    asked = asyncio.create_task(scene.ask())
    await until(lambda: scene.calls == ["a"])
    scene.answers["a"] = raising(httpx.ReadError("no answer"))
    for _ in range(2):
        await scene.prober.probe_all()
    assert not asked.done()
    await scene.prober.probe_all()
    await until(asked.done, seconds=2)
    assert asked.result() == ("worker-1", "positive")
    assert not lost.calls
    assert lost.breaker.open_until is None


async def test_an_answer_of_another_model_is_refused() -> None:
    async def other(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={**GOOD, "model_key": "other"})

    scene = await Scene(A, B).open()
    scene.answers["a"] = other
    for _ in range(5):
        assert await scene.ask() == ("worker-1", "positive")
    assert scene.experts.workers()[0].state in ("refused", "healthy")
    assert scene.calls.count("a") <= 1


async def test_cancelling_frees_the_worker() -> None:
    scene = await Scene(A).open()
    scene.answers["a"] = hanging
    call = asyncio.create_task(scene.ask())
    while not scene.calls:  # noqa: ASYNC110 - the transport has no event
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scene.fleet.all[0].outstanding == 0
    assert scene.experts.workers()[0].state == "healthy"


async def test_calls_in_flight_finish_on_the_old_mapping() -> None:
    scene = await Scene(A).open()
    gate = asyncio.Event()

    async def slow(_request: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(200, json=GOOD)

    scene.answers["a"] = slow
    call = asyncio.create_task(scene.ask())
    while not scene.calls:  # noqa: ASYNC110 - the transport has no event
        await asyncio.sleep(0)
    await scene.experts.use(scene.registry, mapping(B, C))
    gate.set()
    assert await call == ("worker-0", "positive")


async def test_a_request_finishes_by_the_registry_it_began_with() -> None:
    scene = await Scene(A).open()
    edited = files.registry()
    del edited["tasks"][files.SENTIMENT]
    await scene.experts.use(Registry.model_validate(edited), scene.mapping)
    assert await scene.ask() == ("worker-0", "positive")


async def test_a_new_task_is_served_once_a_worker_has_it() -> None:
    scene = await Scene(A).open()
    await scene.prober.probe_all()
    edited = files.registry()
    edited["tasks"]["new/task"] = edited["tasks"][files.SENTIMENT]
    new = Registry.model_validate(edited)
    await scene.experts.use(new, scene.mapping)
    [expert] = new.all_experts("new/task")
    await scene.prober.probe_all()
    assert not scene.experts.reachable(expert)
    scene.served.append("new/task")
    await scene.prober.probe_all()
    assert scene.experts.reachable(expert)


async def test_a_worker_that_lies_does_not_come_back_by_a_trial() -> None:
    async def purple(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return await scene._probed(request, None)
        return httpx.Response(200, json={**GOOD, "result": "purple"})

    scene = await Scene(A, eject_s=0.01).open()
    scene.answers["a"] = purple
    breaker = scene.fleet.all[0].breaker
    breaker.failed(scene.fleet.clock(), scene.fleet.clock(), "invalid", at_once=True)
    await asyncio.sleep(0.02)
    await scene.prober.probe_all()
    await until(lambda: "label" in (breaker.reason or ""))
    assert scene.experts.workers()[0].state == "ejected"
    await scene.prober.aclose()


async def half_open(first: Awaitable[httpx.Response]) -> tuple[Scene, asyncio.Task[tuple[str, str]]]:
    """A single worker, and the request that is its trial: `first` is its answer, all others are good."""
    scene = await Scene(A, eject_s=0.01).open()
    answers = iter([first])

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return await scene._probed(request, None)
        held = next(answers, None)
        return httpx.Response(200, json=GOOD) if held is None else await held

    scene.answers["a"] = answer
    now = scene.fleet.clock()
    scene.fleet.all[0].breaker.failed(now, now, "reset", at_once=True)
    await asyncio.sleep(0.02)
    trial = asyncio.create_task(scene.ask())
    await until(lambda: scene.calls == ["a"])
    return scene, trial


async def test_a_long_trial_keeps_nobody_out() -> None:
    held: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
    scene, trial = await half_open(held)
    [expert] = scene.registry.experts_for(files.SENTIMENT, "en")
    assert (scene.experts.reachable(expert), scene.experts.on_trial(expert)) == (False, True)
    others = [asyncio.create_task(scene.ask()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in others)
    await scene.prober.probe_all()
    assert await asyncio.gather(*others) == [("worker-0", "positive")] * 3
    assert not trial.done()
    held.set_result(httpx.Response(200, json=GOOD))
    await trial
    await scene.prober.aclose()


@pytest.mark.parametrize(("code", "answered"), [(200, True), (500, False)])
async def test_who_waits_for_a_trial_hears_of_its_end(code: int, answered: bool) -> None:
    held: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
    scene, trial = await half_open(held)
    others = [asyncio.create_task(scene.ask()) for _ in range(3)]
    await asyncio.sleep(0.01)
    held.set_result(httpx.Response(code, json=GOOD))
    found = await asyncio.gather(trial, *others, return_exceptions=True)
    expected = [tuple] * 4 if answered else [WorkerAnswerError, *[NoWorkerError] * 3]
    assert [type(each) for each in found] == expected


async def test_who_waits_for_a_trial_that_hangs_is_refused_in_time() -> None:
    held: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
    scene, trial = await half_open(held)
    scene.answers["a"] = hanging
    other = asyncio.create_task(scene.ask())
    await scene.prober.probe_all()
    assert not other.done()
    scene.fleet.all[0].breaker.trial_at -= worker.TRIAL_PATIENCE_S
    await scene.prober.probe_all()
    with pytest.raises(NoWorkerError):
        await other
    with pytest.raises(NoWorkerError):
        await scene.ask()
    held.set_result(httpx.Response(200, json=GOOD))
    await trial
    del scene.answers["a"]
    assert await scene.ask() == ("worker-0", "positive")
    await scene.prober.aclose()


async def test_a_retry_waits_for_no_trial() -> None:
    scene = await Scene(A, B, eject_s=0.01).open()
    scene.answers["a"], scene.answers["b"] = status(500), hanging
    now = scene.fleet.clock()
    scene.fleet.all[1].breaker.failed(now, now, "timeout", at_once=True)
    scene.fleet.all[1].breaker.begin(now + 1)
    with pytest.raises(WorkerAnswerError):
        await scene.ask()
    assert scene.calls == ["a"]


async def test_a_trial_that_is_answered_at_last_brings_its_worker_back_whatever_the_probers_said() -> None:
    held: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
    scene, trial = await half_open(held)
    breaker = scene.fleet.all[0].breaker
    now = scene.fleet.clock()
    assert breaker.failed(now, now, "timeout: no answer to a trial", at_once=True, for_s=60)
    held.set_result(httpx.Response(200, json=GOOD))
    await trial
    assert scene.experts.workers()[0].state == "healthy"

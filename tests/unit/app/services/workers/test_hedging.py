"""A second call beside a slow one, with a transport that answers as it is told."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from app.services.ports import Call
from app.services.waiting import Wait
from moe_router.errors import DeadlineError, MissingFieldError, WorkerAnswerError
from tests.stubs import files
from tests.stubs.serving import question, until
from tests.unit.app.services.test_experts_http import (
    GOOD,
    TASK,
    A,
    Answer,
    B,
    C,
    Scene,
    hanging,
    raising,
    status,
)

AFTER_S = 0.01
NEVER_S = 60.0


async def opened(*urls: str, after_s: float = AFTER_S, attempt_timeout_s: float = 5.0) -> Scene:
    return await Scene(*urls, hedge_after_s=after_s, attempt_timeout_s=attempt_timeout_s).open()


def call_of(*, alone: bool = True, timeout_s: float = 10.0) -> Call:
    return Call("id-1", time.monotonic() + timeout_s, caller="c", alone=alone)


async def ask(scene: Scene, call: Call) -> str:
    expert = scene.registry.experts_for(files.SENTIMENT, "en")[0]
    request = question("Sales rose.")
    worker_id, _ = await scene.experts.classify(expert, TASK, request, call)
    return worker_id


def hedges(scene: Scene) -> dict[str, float]:
    """How many there were, by outcome."""
    found = {}
    for outcome in ("won", "lost", "failed", "cancelled", "withheld"):
        value = scene.metrics.registry.get_sample_value("mole_hedges_total", {"outcome": outcome})
        if value is not None:
            found[outcome] = value
    return found


def prefer(scene: Scene, host: str) -> None:
    """The others have more to do already, so that it is asked first."""
    for worker in scene.fleet.all:
        worker.foreign_queue = 0 if worker.spec.url == f"http://{host}:1" else 3


def at_rest(scene: Scene) -> None:
    assert [worker.outstanding for worker in scene.fleet.all] == [0] * len(scene.fleet.all)
    assert not any(room.busy for room in scene.experts._rooms.values())
    assert {worker.breaker.trial for worker in scene.fleet.all} == {False}


def answering_when(gate: asyncio.Event, answer: Answer | None = None) -> Answer:
    async def wait(request: httpx.Request) -> httpx.Response:
        await gate.wait()
        return await answer(request) if answer else httpx.Response(200, json=GOOD)

    return wait


async def test_a_slow_worker_is_passed_over_and_let_go() -> None:
    scene = await opened(A, B)
    prefer(scene, "a")
    scene.answers["a"] = hanging
    call = call_of()
    assert await ask(scene, call) == "worker-1"
    assert scene.calls == ["a", "b"]
    assert [(step["step"], step["choice"]) for step in call.hedges] == [("hedge", "worker-1")]
    assert call.hedges[0]["ms"] >= AFTER_S * 1000 * 0.9
    assert hedges(scene) == {"won": 1}
    await asyncio.sleep(0)
    at_rest(scene)
    assert {worker.state for worker in scene.experts.workers()} == {"healthy"}


async def test_the_time_of_both_is_counted_once() -> None:
    scene = await opened(A, B)
    prefer(scene, "a")
    scene.answers["a"] = hanging
    call = call_of()
    began = time.perf_counter()
    await ask(scene, call)
    assert 0 < call.worker_ms <= (time.perf_counter() - began) * 1000


async def test_a_quick_worker_needs_no_other() -> None:
    scene = await opened(A, B, after_s=NEVER_S)
    call = call_of()
    await ask(scene, call)
    assert len(scene.calls) == 1
    assert call.hedges == ()
    assert hedges(scene) == {}
    at_rest(scene)


async def test_the_first_may_still_win() -> None:
    scene = await opened(A, B)
    prefer(scene, "a")
    gate = asyncio.Event()
    scene.answers["a"], scene.answers["b"] = answering_when(gate), hanging
    asked = asyncio.create_task(ask(scene, call_of()))
    await until(lambda: scene.calls == ["a", "b"])
    gate.set()
    assert await asked == "worker-0"
    assert hedges(scene) == {"lost": 1}
    await asyncio.sleep(0)
    at_rest(scene)


@pytest.mark.parametrize("fault", [raising(httpx.ReadError("reset")), status(500), status(503)])
@pytest.mark.parametrize("faulty", ["a", "b"])
async def test_a_fault_of_one_leaves_it_to_the_other(fault: Answer, faulty: str) -> None:
    scene = await opened(A, B)
    prefer(scene, "a")
    failing, gate = asyncio.Event(), asyncio.Event()
    for host in "ab":
        scene.answers[host] = answering_when(failing, fault) if host == faulty else answering_when(gate)
    asked = asyncio.create_task(ask(scene, call_of()))
    await until(lambda: scene.calls == ["a", "b"])
    failing.set()
    await until(lambda: sum(worker.outstanding for worker in scene.fleet.all) == 1)
    gate.set()
    assert await asked == {"a": "worker-1", "b": "worker-0"}[faulty]
    assert hedges(scene) == {{"a": "won", "b": "lost"}[faulty]: 1}
    at_rest(scene)


async def test_a_third_mends_what_both_could_not() -> None:
    scene = await opened(A, B, C)
    for worker in scene.fleet.all:
        worker.foreign_queue = 3 if worker.spec.url == C else 0
    scene.fleet.all[2].outstanding = scene.fleet.all[2].max_in_flight - 1  # the last choice, not full
    gate = asyncio.Event()
    scene.answers["a"] = scene.answers["b"] = answering_when(gate, status(500))
    asked = asyncio.create_task(ask(scene, call_of()))
    await until(lambda: sorted(scene.calls) == ["a", "b"])
    gate.set()
    assert await asked == "worker-2"
    assert hedges(scene) == {"failed": 1}


async def test_where_both_fail_the_fault_is_told() -> None:
    scene = await opened(A, B)
    gate = asyncio.Event()
    scene.answers["a"] = scene.answers["b"] = answering_when(gate, status(500))
    asked = asyncio.create_task(ask(scene, call_of()))
    await until(lambda: sorted(scene.calls) == ["a", "b"])
    gate.set()
    with pytest.raises(WorkerAnswerError):
        await asked
    assert hedges(scene) == {"failed": 1}
    at_rest(scene)


async def test_the_callers_mistake_ends_both() -> None:
    scene = await opened(A, B)
    prefer(scene, "a")
    scene.answers["a"], scene.answers["b"] = hanging, status(400, "missing-field")
    with pytest.raises(MissingFieldError):
        await ask(scene, call_of())
    await asyncio.sleep(0)
    at_rest(scene)


async def test_the_end_of_the_requests_time_ends_both() -> None:
    scene = await opened(A, B)
    scene.answers["a"] = scene.answers["b"] = hanging
    with pytest.raises(DeadlineError):
        await ask(scene, call_of(timeout_s=0.1))
    await asyncio.sleep(0)
    at_rest(scene)
    assert {worker.state for worker in scene.experts.workers()} == {"healthy"}


async def test_a_client_that_goes_cancels_both() -> None:
    scene = await opened(A, B)
    scene.answers["a"] = scene.answers["b"] = hanging
    asked = asyncio.create_task(ask(scene, call_of()))
    await until(lambda: sorted(scene.calls) == ["a", "b"])
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert hedges(scene) == {"cancelled": 1}
    at_rest(scene)


async def test_an_item_of_a_batch_is_not_hedged() -> None:
    scene = await opened(A, B, attempt_timeout_s=0.2)
    prefer(scene, "a")
    scene.answers["a"] = hanging
    call = call_of(alone=False)
    assert await ask(scene, call) == "worker-1"  # by the failover, after the attempt's whole time
    assert hedges(scene) == {}
    assert call.hedges == ()


@pytest.mark.parametrize("why", ["alone", "ejected", "full", "trial"])
async def test_where_no_other_replica_is_fit_there_is_no_hedge(why: str) -> None:
    scene = await opened(*((A,) if why == "alone" else (A, B)))
    gate = asyncio.Event()
    scene.answers["a"] = scene.answers["b"] = answering_when(gate)
    if why != "alone":
        other, now = scene.fleet.all[1], scene.fleet.clock()
        if why == "full":
            other.outstanding = other.max_in_flight
        else:
            at = now - (100 if why == "trial" else 0)
            other.breaker.failed(at, at, "reset", at_once=True, for_s=60)
    budget = scene.experts._budget.tokens
    asked = asyncio.create_task(ask(scene, call_of()))
    await until(lambda: bool(scene.calls))
    await asyncio.sleep(AFTER_S * 3)
    gate.set()
    assert await asked == "worker-0"
    assert scene.calls == ["a"]
    assert hedges(scene) == {}
    assert scene.experts._budget.tokens == budget
    if why != "full":
        at_rest(scene)


async def test_no_hedge_overtakes_those_who_wait() -> None:
    scene = await opened(A, B)
    prefer(scene, "a")
    gate = asyncio.Event()
    scene.answers["a"] = answering_when(gate)
    room = scene.experts._room(files.MODEL)
    waits = asyncio.create_task(room.enter("other", lambda: Wait.FULL))
    await until(lambda: room.waiting == 1)
    asked = asyncio.create_task(ask(scene, call_of()))
    await until(lambda: bool(scene.calls))
    await asyncio.sleep(AFTER_S * 3)
    gate.set()
    assert await asked == "worker-0"
    assert hedges(scene) == {}
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)


async def test_the_budget_bounds_them() -> None:
    scene = await opened(A, B, attempt_timeout_s=0.2)
    scene.answers["a"] = hanging
    budget = scene.experts._budget
    budget.tokens, budget.per_request = 2.0, 0.0
    for _ in range(4):
        prefer(scene, "a")
        scene.fleet.all[0].breaker.succeeded(time.monotonic())
        assert await ask(scene, call_of()) == "worker-1"
    # The last two went on only when the attempt's time was up: the first failover is always free.
    assert hedges(scene) == {"won": 2, "withheld": 2}
    assert budget.tokens == 0
    await asyncio.sleep(0)
    at_rest(scene)

from __future__ import annotations

import random

from app.services.workers.fleet import Fleet
from app.services.workers.worker import TRIAL_PATIENCE_S
from moe_router.contracts import ExpertTasksAnswer
from moe_router.mapping import WorkerMapping
from tests.stubs import files
from tests.stubs.serving import mapping

A, B, C = "http://a:1", "http://b:1", "http://c:1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fleet(*urls: str, clock: Clock | None = None) -> Fleet:
    made = Fleet(eject_after=3, eject_s=1, max_in_flight=2, clock=clock or Clock(), rng=random.Random(1))  # noqa: S311
    made.use(mapping(*urls))
    for worker in made.all:
        worker.probed("ready")
    return made


def order(made: Fleet) -> list[str]:
    return [worker.worker_id for worker in made.candidates(files.MODEL, files.SENTIMENT)]


def test_the_least_loaded_of_two_comes_first() -> None:
    made = fleet(A, B)
    made.all[0].outstanding = 1
    assert [order(made) for _ in range(5)] == [["worker-1", "worker-0"]] * 5
    made.all[1].probed("ready", queue_depth=7)
    assert order(made) == ["worker-0", "worker-1"]


def test_load_spreads_over_equal_workers() -> None:
    made = fleet(A, B, C)
    firsts = {order(made)[0] for _ in range(50)}
    assert firsts == {"worker-0", "worker-1", "worker-2"}


def test_only_workers_that_can_be_tried_are_candidates() -> None:
    clock = Clock()
    made = fleet(A, B, C, clock=clock)
    down, ejected, other = made.all
    down.probed("down", "refused")
    ejected.breaker.failed(0, 0, "reset", at_once=True)
    assert order(made) == ["worker-2"]
    other.probed("loading")
    assert order(made) == []
    clock.now = 1.0
    assert order(made) == ["worker-1"]
    assert made.states() == {"down": 1, "ejected": 1, "loading": 1}


def test_a_worker_not_probed_yet_may_be_tried() -> None:
    made = Fleet(eject_after=3, eject_s=1, max_in_flight=2)
    made.use(mapping(A))
    assert order(made) == ["worker-0"]
    assert made.infos()[0].state == "down"


def test_full_workers_and_workers_on_trial_come_last() -> None:
    clock = Clock()
    made = fleet(A, B, C, clock=clock)
    made.all[0].outstanding = 2
    made.all[1].breaker.failed(0, 0, "reset", at_once=True)
    clock.now = 5
    assert [order(made)[0] for _ in range(20)].count("worker-0") == 0


def test_a_model_is_full_where_all_that_can_be_tried_are() -> None:
    made = fleet(A, B, C)
    assert not made.full(files.MODEL)
    made.all[0].outstanding = made.all[1].outstanding = 2
    assert not made.full(files.MODEL)
    made.all[2].probed("down", "refused")
    assert made.full(files.MODEL)
    for worker in made.all:
        worker.probed("down", "refused")
    assert not made.full(files.MODEL)


def test_a_worker_on_trial_is_worth_waiting_for() -> None:
    clock = Clock()
    made = fleet(A, clock=clock)
    worker = made.all[0]
    worker.breaker.failed(0, 0, "reset", at_once=True)
    assert not made.reachable(files.MODEL, files.SENTIMENT)
    clock.now = 1.0
    worker.take(1.0, "")
    assert order(made) == []
    assert not made.reachable(files.MODEL, files.SENTIMENT)
    assert made.on_trial(files.MODEL, files.SENTIMENT)
    assert made.full(files.MODEL)
    worker.probed("down", "refused")
    assert not made.on_trial(files.MODEL, files.SENTIMENT)
    assert not made.full(files.MODEL)


def test_a_trial_that_may_hang_is_not() -> None:
    clock = Clock()
    made = fleet(A, clock=clock)
    made.all[0].breaker.failed(0, 0, "timeout", at_once=True)
    made.all[0].take(1.0, "")
    clock.now = 1.0 + TRIAL_PATIENCE_S
    assert not made.on_trial(files.MODEL, files.SENTIMENT)
    assert not made.full(files.MODEL)


def test_what_a_worker_does_not_serve_is_not_asked_of_it() -> None:
    made = fleet(A)
    made.all[0].told_tasks(ExpertTasksAnswer(worker_id="x", model_key=files.MODEL, tasks=[]))
    assert order(made) == []


def test_another_model_is_refused() -> None:
    made = fleet(A)
    made.all[0].told_tasks(ExpertTasksAnswer(worker_id="x", model_key="other", tasks=[]))
    told = made.infos()[0]
    assert (told.state, order(made)) == ("refused", [])
    assert "other" in (told.reason or "")


def test_an_edit_keeps_what_is_known_of_workers_that_stay() -> None:
    made = fleet(A, B)
    kept = made.all[0]
    kept.outstanding = 1
    made.use(mapping(A, C))
    assert made.all[0] is kept
    assert made.all[1].spec.url == C
    assert made.all[1].view == "unknown"


def test_a_drained_worker_gets_nothing_new() -> None:
    made = fleet(A)
    data = files.mapping(A)
    data["workers"]["worker-0"]["drain"] = True
    made.use(WorkerMapping.model_validate(data))
    assert order(made) == []
    assert made.infos()[0].state == "draining"


def test_models_without_a_worker() -> None:
    made = fleet(A)
    assert made.holds(files.MODEL)
    assert not made.holds("other")
    assert made.of("other") == []


def test_quantiles_and_the_end_of_an_ejection_are_told() -> None:
    made = fleet(A)
    worker = made.all[0]
    assert made.infos()[0].latency_ms.p50 is None
    worker.latencies_ms.extend(range(100))
    worker.breaker.failed(0, 0, "reset: it broke", at_once=True)
    told = made.infos()[0]
    assert (told.latency_ms.p50, told.latency_ms.p95) == (50, 95)
    assert (told.state, told.reason) == ("ejected", "reset: it broke")
    assert told.until is not None

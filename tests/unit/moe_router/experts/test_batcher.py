from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from moe_router.errors import DeadlineError, NotReadyError, OverloadedError
from moe_router.experts.admission import JOBS_PER_PLACE
from moe_router.experts.batcher import MAKERS, MOST_DEBTS, Batcher


class Device:
    """Answers a batch when it is let to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.failure: Exception | None = None

    def __call__(self, jobs: Sequence[str]) -> list[str | BaseException]:
        self.batches.append(list(jobs))
        self.started.release()
        assert self.go.acquire(timeout=10)
        if self.failure is not None:
            raise self.failure
        return [ValueError(job) if job == "bad" else job.upper() for job in jobs]

    async def has_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=10)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
async def batcher(device: Device) -> AsyncIterator[Batcher[str, str]]:
    made: Batcher[str, str] = Batcher(device, max_batch_cost=4, max_queue=6, clock=lambda: 100.0)
    yield made
    device.go.release(100)
    await made.aclose()


def ask(
    batcher: Batcher[str, str], job: str, task: str = "t", caller: str = "c", cost: int = 1, kind: str = ""
) -> asyncio.Task[str]:
    return asyncio.create_task(batcher.submit(job, cost=cost, caller=caller, task=task, kind=kind))


def named(by: str, name: str) -> tuple[str, str]:
    """Task and caller of a job that only one of the two tells apart."""
    return (name, "c") if by == "task" else ("t", name)


BY = pytest.mark.parametrize("by", ["task", "caller"])
"""Whose share of the device is looked at."""


async def test_an_idle_device_takes_a_request_at_once(batcher: Batcher[str, str], device: Device) -> None:
    device.go.release()
    assert await batcher.submit("a", cost=1, caller="c", task="g") == "A"
    assert batcher.depth == 0


async def test_a_batch_forms_while_one_runs_and_keeps_the_budget(
    batcher: Batcher[str, str], device: Device
) -> None:
    first = ask(batcher, "a")
    await device.has_started()
    others = [ask(batcher, job) for job in "bcdefg"]
    await asyncio.sleep(0)
    assert batcher.depth == 7
    device.go.release(10)
    assert await asyncio.gather(first, *others) == list("ABCDEFG")
    assert device.batches == [["a"], ["b", "c", "d", "e"], ["f", "g"]]


async def test_a_small_rest_goes_with_the_batch(batcher: Batcher[str, str], device: Device) -> None:
    first = ask(batcher, "a")
    await device.has_started()
    rest = [ask(batcher, job) for job in "bcdef"]  # 5, a quarter above the budget
    other_kind = ask(batcher, "x", kind="y")
    await asyncio.sleep(0)
    device.go.release(10)
    assert await asyncio.gather(first, *rest, other_kind) == list("ABCDEFX")
    assert device.batches == [["a"], ["b", "c", "d", "e", "f"], ["x"]]


async def test_who_has_gone_is_no_rest(batcher: Batcher[str, str], device: Device) -> None:
    first = ask(batcher, "a")
    await device.has_started()
    waiting = [ask(batcher, job) for job in "bcdef"]
    gone = ask(batcher, "g", cost=2)
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    device.go.release(10)
    assert await asyncio.gather(first, *waiting) == list("ABCDEF")
    assert device.batches == [["a"], ["b", "c", "d", "e", "f"]]


async def test_a_rest_is_small_by_what_waits_still(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=4, max_queue=20)
    first = ask(batcher, "a")
    await device.has_started()
    waiting = [ask(batcher, job) for job in "bcdefghij"]
    await asyncio.sleep(0)
    device.go.release(10)
    assert await asyncio.gather(first, *waiting) == list("ABCDEFGHIJ")
    assert device.batches == [["a"], ["b", "c", "d", "e"], ["f", "g", "h", "i", "j"]]
    await batcher.aclose()


async def test_a_job_over_the_budget_goes_alone(batcher: Batcher[str, str], device: Device) -> None:
    device.go.release(10)
    await asyncio.gather(ask(batcher, "a"), ask(batcher, "big", cost=50), ask(batcher, "b"))
    assert ["big"] in device.batches


@BY
async def test_a_flood_does_not_starve_another(batcher: Batcher[str, str], device: Device, by: str) -> None:
    first = ask(batcher, "x")
    await device.has_started()
    flood = [ask(batcher, f"a{i}", *named(by, "flood")) for i in range(5)]
    await asyncio.sleep(0)
    small = ask(batcher, "b", *named(by, "small"))
    await asyncio.sleep(0)
    device.go.release(10)
    await asyncio.gather(first, small, *flood)
    assert "b" in device.batches[1]


async def test_who_asks_for_many_tasks_gets_no_more_for_it(device: Device) -> None:
    one_by_one: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=99)
    asked = [ask(one_by_one, "x")]
    await device.has_started()
    asked += [ask(one_by_one, f"a{i}", f"task {i}", caller="a") for i in range(9)]
    asked += [ask(one_by_one, f"b{i}", caller="b") for i in range(9)]
    await asyncio.sleep(0)
    device.go.release(100)
    await asyncio.gather(*asked)
    served = "".join(job[0] for [job] in device.batches[1:])
    assert all(abs(served[:n].count("a") - served[:n].count("b")) <= 1 for n in range(len(served)))
    await one_by_one.aclose()


@BY
@pytest.mark.parametrize("comer", ["idle", "new"])
async def test_who_was_idle_claims_nothing_for_it(device: Device, comer: str, by: str) -> None:
    one_by_one: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=99)
    asked = [ask(one_by_one, "i", *named(by, "idle"))]
    asked += [ask(one_by_one, f"b{i}", *named(by, "busy")) for i in range(20)]
    for _ in range(8):
        await device.has_started()
        device.go.release()
    await device.has_started()
    asked += [ask(one_by_one, f"c{i}", *named(by, comer)) for i in range(4)]
    await asyncio.sleep(0)
    device.go.release(100)
    await asyncio.gather(*asked)
    # Of two that are level who came last goes first: the other one was served meanwhile.
    assert "".join(job[0] for [job] in device.batches[9:17]) == "cbcbcbcb"
    await one_by_one.aclose()


@BY
async def test_those_who_keep_coming_do_not_starve_who_comes_back(device: Device, by: str) -> None:
    one_by_one: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=99)
    asked = [ask(one_by_one, "r", *named(by, "returning"))]
    await device.has_started()
    asked += [ask(one_by_one, "n", *named(by, f"new {i}")) for i in range(2)]
    asked.append(ask(one_by_one, "r", *named(by, "returning")))
    for index in range(2, 12):
        asked.append(ask(one_by_one, "n", *named(by, f"new {index}")))
        await asyncio.sleep(0)
        device.go.release()
        await device.has_started()
        assert len(one_by_one._callers) <= 3
        assert sum(len(caller.groups) for caller in one_by_one._callers.values()) <= 3
    assert ["r"] in device.batches[1:5]
    device.go.release(100)
    await asyncio.gather(*asked)
    await one_by_one.aclose()


@BY
async def test_who_is_gone_leaves_nothing_behind_while_others_wait(device: Device, by: str) -> None:
    one_by_one: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=99)
    asked = [ask(one_by_one, f"b{i}", *named(by, "busy")) for i in range(20)]
    for index in range(6):
        await device.has_started()
        asked.append(ask(one_by_one, "once", *named(by, f"one of many {index}")))
        await asyncio.sleep(0)
        device.go.release(2)
        await device.has_started()
        assert len(one_by_one._callers) <= 3
        assert sum(len(caller.groups) for caller in one_by_one._callers.values()) <= 3
    device.go.release(100)
    await asyncio.gather(*asked)
    assert not one_by_one._callers
    await one_by_one.aclose()


async def test_a_full_queue_refuses_at_once(batcher: Batcher[str, str], device: Device) -> None:
    running = ask(batcher, "a")
    await device.has_started()
    waiting = [ask(batcher, str(i)) for i in range(6)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batcher.submit("more", cost=1, caller="c", task="g")
    device.go.release(10)
    await asyncio.gather(running, *waiting)


async def test_a_place_counts_before_its_jobs_are_made(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=4, max_queue=1)
    with batcher.place("c"):
        assert batcher.depth == 1
        with pytest.raises(OverloadedError):
            await batcher.submit("more", cost=1, caller="c", task="g")
    assert batcher.depth == 0
    device.go.release()
    assert await batcher.submit("a", cost=1, caller="c", task="g") == "A"
    await batcher.aclose()


async def many(batcher: Batcher[str, str], jobs: str, group: str = "g", caller: str = "c") -> list[str]:
    with batcher.place(caller) as place:
        return await batcher.run(place, list(jobs), costs=[1] * len(jobs), task=group)


async def test_a_request_of_more_jobs_than_the_queue_holds_takes_one_place(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=2, max_queue=2)
    long = asyncio.create_task(many(batcher, "abcdefghij"))
    await device.has_started()
    other = ask(batcher, "x", "other")
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batcher.submit("more", cost=1, caller="c", task="g")
    device.go.release(20)
    assert await long == list("ABCDEFGHIJ")
    assert await other == "X"
    assert "x" in device.batches[1]
    assert await many(batcher, "") == []
    assert batcher.depth == 0
    await batcher.aclose()


async def test_a_failing_job_takes_the_rest_of_its_request_out_of_the_queue(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=9)
    with batcher.place("c") as place:
        failing = asyncio.create_task(batcher.run(place, ["bad", "b", "c"], costs=[1, 1, 1], task="g"))
        await device.has_started()
        device.go.release()
        with pytest.raises(ValueError, match="bad"):
            await failing
    device.go.release(10)
    await batcher.aclose()
    assert ["c"] not in device.batches


async def test_draining_waits_for_a_request_whose_jobs_are_being_made(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=4, max_queue=9)
    device.go.release()
    with batcher.place("c") as place:
        draining = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0)
        assert await batcher.run(place, ["a"], costs=[1], task="g") == ["A"]
    await draining
    await batcher.aclose()


async def test_a_cancelled_request_leaves_the_queue_and_costs_nothing(
    batcher: Batcher[str, str], device: Device
) -> None:
    running = ask(batcher, "a")
    await device.has_started()
    gone, stays = ask(batcher, "gone"), ask(batcher, "stays")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    assert batcher.depth == 2
    device.go.release(10)
    await asyncio.gather(running, stays)
    assert device.batches == [["a"], ["stays"]]


async def test_a_request_whose_time_is_up_is_not_started(batcher: Batcher[str, str]) -> None:
    with pytest.raises(DeadlineError):
        await batcher.submit("late", cost=1, caller="c", task="g", deadline=100.0)


async def test_a_deadline_ends_the_wait_and_the_work_is_not_done(device: Device) -> None:
    now = [100.0]
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=4, max_queue=9, clock=lambda: now[0])
    running = ask(batcher, "a")
    await device.has_started()
    late = asyncio.create_task(batcher.submit("late", cost=1, caller="c", task="g", deadline=160.0))
    await asyncio.sleep(0)
    now[0] = 161.0
    device.go.release(10)
    with pytest.raises(DeadlineError):
        await late
    await running
    await batcher.aclose()
    assert device.batches == [["a"]]


async def test_a_deadline_passes_while_the_device_computes(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=4, max_queue=9, clock=lambda: 100.0)
    with pytest.raises(DeadlineError):
        await batcher.submit("slow", cost=1, caller="c", task="g", deadline=100.01)
    device.go.release(10)
    await batcher.aclose()


async def test_a_failing_job_fails_alone(batcher: Batcher[str, str], device: Device) -> None:
    running = ask(batcher, "a")
    await device.has_started()
    bad, good = ask(batcher, "bad"), ask(batcher, "good")
    device.go.release(10)
    assert await good == "GOOD"
    with pytest.raises(ValueError, match="bad"):
        await bad
    await running


async def test_a_failing_device_tells_every_caller_and_serves_on(
    batcher: Batcher[str, str], device: Device
) -> None:
    device.failure = RuntimeError("device lost")
    device.go.release(10)
    with pytest.raises(RuntimeError, match="device lost"):
        await batcher.submit("a", cost=1, caller="c", task="g")
    device.failure = None
    assert await batcher.submit("b", cost=1, caller="c", task="g") == "B"


async def test_draining_answers_what_was_taken_and_takes_nothing_more(
    batcher: Batcher[str, str], device: Device
) -> None:
    taken = [ask(batcher, job) for job in "abcde"]
    await device.has_started()
    closing = asyncio.create_task(batcher.drain())
    await asyncio.sleep(0)
    with pytest.raises(NotReadyError):
        await batcher.submit("late", cost=1, caller="c", task="g")
    device.go.release(10)
    await closing
    assert await asyncio.gather(*taken) == list("ABCDE")


@pytest.mark.parametrize("flooders", [1, 2, 3])
async def test_a_few_callers_cannot_keep_another_out(device: Device, flooders: int) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=6)
    running = ask(batcher, "x")
    await device.has_started()
    flood = [ask(batcher, f"f{i}", caller=f"flooder {i % flooders}") for i in range(6)]
    await asyncio.sleep(0)
    light = ask(batcher, "light", caller="light")
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batcher.submit("more", cost=1, caller="flooder 0", task="t")
    device.go.release(20)
    assert await light == "LIGHT"
    outcomes = await asyncio.gather(running, *flood, return_exceptions=True)
    refused = [type(outcome) for outcome in outcomes if not isinstance(outcome, str)]
    assert refused == [OverloadedError]
    first = [i for i in range(6) if i % flooders == 0]
    assert isinstance(outcomes[1:][first[-1]], OverloadedError)  # its newest
    await batcher.aclose()


async def test_who_makes_room_while_its_jobs_are_made_is_told_so(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=2)
    device.go.release(9)
    with batcher.place("a"), batcher.place("a") as newest:
        assert await batcher.submit("b", cost=1, caller="b", task="t") == "B"
        with pytest.raises(OverloadedError):
            await batcher.run(newest, ["a"], costs=[1], task="t")
    assert batcher.depth == 0
    assert ["a"] not in device.batches
    await batcher.aclose()


async def test_many_jobs_count_as_several_requests_but_one_text_always_fits(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=8)
    running = ask(batcher, "x")
    await device.has_started()
    long = asyncio.create_task(many(batcher, "l" * 999, caller="long"))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await many(batcher, "m" * 999, caller="longer")
    light = [ask(batcher, "light", caller=f"light {i}") for i in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await many(batcher, "m", caller="long")
    device.go.release(2000)
    assert await asyncio.gather(*light) == ["LIGHT"] * 4
    assert len(await long) == 999
    await running
    await batcher.aclose()


async def test_a_text_that_is_being_answered_makes_no_room(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=2)
    long = asyncio.create_task(many(batcher, "l" * 99, caller="long"))
    await device.has_started()
    other = ask(batcher, "o", caller="other")
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batcher.submit("more", cost=1, caller="more", task="t")
    device.go.release(999)
    assert (await other, len(await long)) == ("O", 99)
    await batcher.aclose()


async def test_many_cancelled_jobs_are_soon_taken_out(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=100_000)
    running = ask(batcher, "x")
    await device.has_started()
    long = [asyncio.create_task(many(batcher, "l" * 2000)) for _ in range(40)]
    await asyncio.sleep(0)
    for task in reversed(long):
        task.cancel()
    started = time.process_time()
    await asyncio.gather(*long, return_exceptions=True)
    assert time.process_time() - started < 2  # one by one along the queue it takes a minute
    assert batcher.depth == 1
    device.go.release(9)
    await running
    await batcher.aclose()


async def test_jobs_of_two_kinds_share_no_batch(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(device, max_batch_cost=4, max_queue=99)
    asked = [ask(batcher, "x")]
    await device.has_started()
    for i in range(6):
        asked.append(ask(batcher, f"d{i}", "pii", f"caller {i % 2}", kind="decode"))
        asked.append(ask(batcher, f"l{i}", "mood", f"caller {i % 2}", kind="label"))
    await asyncio.sleep(0)
    device.go.release(99)
    await asyncio.gather(*asked)
    assert all(len({job[0] for job in batch}) == 1 for batch in device.batches)
    assert [len(batch) for batch in device.batches[1:3]] == [4, 4]
    assert {batch[0][0] for batch in device.batches[1:3]} == {"d", "l"}
    await batcher.aclose()


@pytest.mark.parametrize("waits_on", [True, False])
async def test_what_a_job_took_beyond_its_cost_is_charged_after_its_batch(
    device: Device, waits_on: bool
) -> None:
    batcher: Batcher[str, str] = Batcher(
        device, max_batch_cost=1, max_queue=99, beyond=lambda result: 5 if result.startswith("D") else 0
    )
    asked = [ask(batcher, "d", "pii", "decoder", kind="decode")]
    await device.has_started()
    asked += [ask(batcher, f"l{i}", caller="other", kind="label") for i in range(9)]
    if waits_on:
        asked.append(ask(batcher, "d", "pii", "decoder", kind="decode"))
        await asyncio.sleep(0)
    device.go.release()
    await device.has_started()
    if not waits_on:
        asked.append(ask(batcher, "d", "pii", "decoder", kind="decode"))
        await asyncio.sleep(0)
    device.go.release(99)
    await asyncio.gather(*asked)
    assert device.batches.index(["d"], 1) > 5
    await batcher.aclose()


async def batches_before_a_newcomer(device: Device, by: str, overrun: int, decoders: str) -> int:
    """How many batches of a flood go before a newcomer's one job, beside two decoders that took too much.

    Batches cost up to 100, jobs 50. The decoders come back `at once`, wait on `still`, or are `gone`.
    """
    batcher: Batcher[str, str] = Batcher(
        device, max_batch_cost=100, max_queue=999, beyond=lambda result: overrun if result == "D" else 0
    )
    decoder = [named(by, f"decoder {i}") for i in range(2)]
    asked = [ask(batcher, "d", *name, cost=50, kind="decode") for name in decoder]
    await device.has_started()
    asked += [ask(batcher, "f", *named(by, "flood"), cost=50, kind="label") for _ in range(300)]
    if decoders == "still":
        asked += [ask(batcher, "d", *name, cost=50, kind="decode") for name in decoder]
    await asyncio.sleep(0)
    device.go.release()
    await device.has_started()
    if decoders == "at once":
        asked += [ask(batcher, "d", *name, cost=50, kind="decode") for name in decoder]
    asked.append(ask(batcher, "new", *named(by, "newcomer"), cost=50, kind="label"))
    await asyncio.sleep(0)
    device.go.release(999)
    await asyncio.gather(*asked)
    await batcher.aclose()
    return next(i for i, batch in enumerate(device.batches[2:]) if "new" in batch)


@BY
@pytest.mark.parametrize("decoders", ["still", "at once", "gone"])
@pytest.mark.parametrize("overrun", [0, 200, 1000, 3000])
async def test_what_others_took_too_much_does_not_put_a_newcomer_behind_a_flood(
    device: Device, by: str, decoders: str, overrun: int
) -> None:
    assert await batches_before_a_newcomer(device, by, overrun, decoders) <= 1


@BY
async def test_who_fills_up_the_batch_of_another_does_not_put_a_newcomer_behind_a_flood(
    device: Device, by: str
) -> None:
    batcher: Batcher[str, str] = Batcher(
        device, max_batch_cost=100, max_queue=999, beyond=lambda result: 3000 if result == "D" else 0
    )
    asked = [ask(batcher, "d", *named(by, "decoder"), cost=50, kind="decode")]
    await device.has_started()
    asked.append(ask(batcher, "d", *named(by, "decoder"), cost=50, kind="decode"))
    asked += [ask(batcher, "f", *named(by, "flood"), cost=50, kind="label") for _ in range(300)]
    await asyncio.sleep(0)
    device.go.release()
    await device.has_started()
    asked.append(ask(batcher, "other", *named(by, "other"), cost=50, kind="decode"))
    await asyncio.sleep(0)
    while "other" not in device.batches[-1]:
        device.go.release()
        await device.has_started()
    assert device.batches[-1] == ["other", "d"]
    asked.append(ask(batcher, "new", *named(by, "newcomer"), cost=50, kind="label"))
    await asyncio.sleep(0)
    at = len(device.batches)
    device.go.release(999)
    await asyncio.gather(*asked)
    assert any("new" in batch for batch in device.batches[at : at + 2])
    await batcher.aclose()


@BY
async def test_who_took_too_much_and_left_owes_it_until_the_others_have_had_as_much(
    device: Device, by: str
) -> None:
    batcher: Batcher[str, str] = Batcher(
        device, max_batch_cost=1, max_queue=99, beyond=lambda result: 10 if result == "D" else 0
    )
    asked = [ask(batcher, "d", *named(by, "decoder"))]
    await device.has_started()
    asked += [ask(batcher, f"f{i}", *named(by, "flood")) for i in range(40)]
    for wait in (3, 20):
        for _ in range(wait):
            device.go.release()
            await device.has_started()
        asked.append(ask(batcher, "back", *named(by, "decoder")))
        await asyncio.sleep(0)
    device.go.release(99)
    await asyncio.gather(*asked)
    first, second = (i for i, batch in enumerate(device.batches) if batch == ["back"])
    assert 10 <= first <= 13
    assert 23 <= second <= 25
    await batcher.aclose()


async def test_what_is_remembered_of_those_who_are_gone_is_little_and_not_for_long(device: Device) -> None:
    batcher: Batcher[str, str] = Batcher(
        device, max_batch_cost=1, max_queue=99, beyond=lambda result: len(result) * 2
    )
    device.go.release(9999)
    for index in range(MOST_DEBTS + 40):
        assert await batcher.submit("d", cost=0, caller=f"decoder {index}", task="t")
    assert len(batcher._debts._had) == MOST_DEBTS
    await batcher.submit("f", cost=9, caller="other", task="t")
    assert list(batcher._debts._had) == ["other"]
    await batcher.aclose()


class Activations:
    """What a pass holds."""


class Pass:
    """Fails for one job, and notes what is alive of failed passes when another begins."""

    def __init__(self) -> None:
        self.failed: list[weakref.ref[Activations]] = []
        self.alive: list[bool] = []

    def __call__(self, jobs: Sequence[str]) -> list[str | BaseException]:
        self.alive += [held() is not None for held in self.failed]
        held = Activations()
        if "bad" in jobs:
            self.failed.append(weakref.ref(held))
            try:
                raise MemoryError
            except MemoryError as error:
                raise OverloadedError("no room") from error
        return list(jobs)


async def test_a_failed_pass_holds_nothing_while_the_next_ones_run() -> None:
    gc.disable()  # which would find a ring sooner or later
    try:
        run = Pass()
        batcher: Batcher[str, str] = Batcher(run, max_batch_cost=1, max_queue=99)
        with pytest.raises(OverloadedError):
            await batcher.submit("bad", cost=1, caller="c", task="t")
        await batcher.submit("good", cost=1, caller="c", task="t")
        assert run.alive == [False]
        await batcher.aclose()
    finally:
        gc.enable()


async def test_an_error_is_gone_with_the_request_that_it_ended(device: Device) -> None:
    gc.disable()
    try:
        batcher: Batcher[str, str] = Batcher(device, max_batch_cost=1, max_queue=99)
        device.go.release(9)
        alive: list[weakref.ref[Activations]] = []

        async def asks() -> None:
            held = Activations()  # in a frame that the error's trace leads to
            alive.append(weakref.ref(held))
            await batcher.submit("bad", cost=1, caller="c", task="t")

        with contextlib.suppress(ValueError):
            await asks()
        await batcher.submit("good", cost=1, caller="c", task="t")  # the thread lets go of the batch before
        assert alive[0]() is None
        await batcher.aclose()
    finally:
        gc.enable()


async def test_a_place_that_makes_room_is_refused_before_its_jobs_are_made(
    batcher: Batcher[str, str],
) -> None:
    made, go = [], threading.Semaphore(0)

    def make(name: str) -> Callable[[], str]:
        def do() -> str:
            made.append(name)
            assert go.acquire(timeout=10)
            return name

        return do

    async def flood(name: str) -> str:
        with batcher.place("flood") as place:
            return await batcher.make(place, make(name), task="t")

    asked = [asyncio.create_task(flood(f"f{i}")) for i in range(6)]  # the queue is full
    await asyncio.sleep(0.05)
    with batcher.place("other") as place:
        with pytest.raises(OverloadedError):
            await asked[-1]
        assert len(made) == MAKERS  # the others wait for their turn
        other = asyncio.create_task(batcher.make(place, make("other"), task="t"))
        await asyncio.sleep(0)
        go.release(10)
        assert await other == "other"
    assert await asyncio.gather(*asked[:-1]) == [f"f{i}" for i in range(5)]
    # Of two that begin at once either thread may be the first to note it.
    assert [sorted(made[:2]), sorted(made[2:4])] == [["f0", "f1"], ["f2", "other"]]
    assert "f5" not in made


async def test_too_many_jobs_are_refused_before_they_are_made(batcher: Batcher[str, str]) -> None:
    with batcher.place("a"), batcher.place("b"), batcher.place("c"), batcher.place("d") as place:
        many = batcher.make(place, lambda: pytest.fail("made"), task="t", at_least=3 * JOBS_PER_PLACE)
        with pytest.raises(OverloadedError):
            await many


async def test_who_waits_to_be_made_gives_up_in_time(device: Device) -> None:
    own: Batcher[str, str] = Batcher(device, max_batch_cost=4, max_queue=6)
    go = threading.Event()

    async def wait(deadline: float | None) -> bool:
        with own.place("c", deadline) as place:
            return await own.make(place, lambda: go.wait(10), task="t", deadline=deadline)

    others = [asyncio.create_task(wait(None)) for _ in range(MAKERS)]
    await asyncio.sleep(0)
    with pytest.raises(DeadlineError):
        await wait(time.monotonic() + 0.05)
    go.set()
    assert await asyncio.gather(*others) == [True] * MAKERS
    await own.aclose()

"""The runner over leases that are kept in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from app.services.jobs import runner as module
from app.services.jobs.runner import JobRunner, Pace, backoff_s
from app.storage.job_records import ClaimedItem, ItemKind, ItemOutcome
from moe_router.errors import StorageError
from tests.stubs.serving import until


class Leases:
    def __init__(self, count: int, attempts: int = 1) -> None:
        self.due = [ClaimedItem("j", i, "o", "{}", attempts) for i in range(count)]
        self.finished: list[ItemOutcome] = []
        self.released: list[ClaimedItem] = []
        self.renewed = 0
        self.claims = 0
        self.gone = False
        self.broken = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def claim(
        self, limit: int, *, now: float, waiting: Mapping[str, int] | None = None
    ) -> list[ClaimedItem]:
        self.claims += 1
        await self.answers.wait()
        self._check()
        held, taken = Counter(waiting), []
        share = limit // max(len({item.owner for item in self.due} | held.keys()), 1)
        for item in self.due:
            if held[item.owner] < share:
                held[item.owner] += 1
                taken.append(item)
        self.due = [item for item in self.due if item not in taken]
        return taken

    async def renew(self, items: Sequence[ClaimedItem], *, now: float) -> None:
        self._check()
        self.renewed += len(items)

    async def release(self, items: Sequence[ClaimedItem]) -> None:
        self._check()
        self.released += items

    async def finish(self, outcomes: Sequence[ItemOutcome], *, now: float) -> None:
        self._check()
        self.finished += outcomes

    def _check(self) -> None:
        if self.gone:
            raise StorageError("gone")
        if self.broken:
            raise RuntimeError("a fault of ours")


class Executor:
    def __init__(self, kind: ItemKind = "done") -> None:
        self.kind = kind
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0

    async def run(self, item: ClaimedItem) -> ItemOutcome:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return ItemOutcome(item, self.kind, "{}")

    def give_up(self, item: ClaimedItem) -> ItemOutcome:
        return ItemOutcome(item, "failed", '{"given":"up"}')


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIVE_WAY_S", "IDLE_S", "RETRY_S", "LINGER_S"):
        monkeypatch.setattr(module, name, 0.001)


@pytest.fixture
async def started() -> AsyncIterator[Any]:
    made: list[JobRunner] = []

    def start(leases: Leases, executor: Executor, **given: Any) -> JobRunner:
        pace = Pace(given.pop("concurrency", 4), given.pop("max_attempts", 3), given.pop("lease_s", 30.0))
        options = {"ready": lambda: True, "interactive": lambda: 0, "count": lambda _: None} | given
        runner = JobRunner(leases, executor, pace, clock=lambda: 1000.0, **options)
        runner.start()
        made.append(runner)
        return runner

    yield start
    for runner in made:
        await runner.aclose()


async def test_no_more_run_at_once_than_are_allowed(started: Any) -> None:
    leases, executor = Leases(40), Executor()
    started(leases, executor)
    await until(lambda: executor.running == 4)
    executor.gate.set()
    await until(lambda: len(leases.finished) == 40)
    assert executor.most == 4
    assert sorted(o.item.index for o in leases.finished) == list(range(40))


class OfTwo(Executor):
    """The items of `slow` take for ever, all others no time."""

    async def run(self, item: ClaimedItem) -> ItemOutcome:
        return await super().run(item) if item.owner == "slow" else ItemOutcome(item, "done", "{}")


def owned(owner: str, count: int) -> list[ClaimedItem]:
    return [ClaimedItem(owner, i, owner, "{}", 1) for i in range(count)]


async def test_slow_items_leave_the_others_their_part_of_the_places(started: Any) -> None:
    leases, executor = Leases(0), OfTwo()
    leases.due = owned("slow", 40) + owned("quick", 200)
    started(leases, executor)
    await until(lambda: len(leases.finished) == 200)
    assert {outcome.item.owner for outcome in leases.finished} == {"quick"}


async def test_a_caller_who_comes_later_gets_the_next_place(started: Any) -> None:
    leases, executor = Leases(0), OfTwo()
    leases.due = owned("slow", 40)
    runner = started(leases, executor)
    await until(lambda: executor.running == 4)
    leases.due += owned("quick", 200)
    runner.wake()
    await until(lambda: bool(runner._turns.waiting.get("quick")))
    executor.gate.set()  # one of the slow ones ends
    await asyncio.sleep(0)
    executor.gate.clear()
    await until(lambda: sum(o.item.owner == "quick" for o in leases.finished) == 200)


async def test_what_waits_goes_on_while_nothing_can_be_claimed(started: Any) -> None:
    leases, executor = Leases(8), Executor()
    runner = started(leases, executor)
    await until(lambda: executor.running == 4)
    leases.gone = True
    claims = leases.claims
    runner.wake()
    await until(lambda: leases.claims > claims)
    executor.gate.set()
    await until(lambda: len(runner._finished) == 8)


async def test_what_waits_goes_on_while_a_claim_hangs(started: Any) -> None:
    leases, executor = Leases(0), Executor()
    leases.due = owned("a", 1) + owned("b", 4)
    runner = started(leases, executor, concurrency=3)
    await until(lambda: executor.running == 3 and not leases.due and bool(runner._turns))
    leases.answers.clear()
    claims = leases.claims
    runner.wake()
    await until(lambda: leases.claims > claims)
    executor.gate.set()  # a, of whom there may be more, is waited for no longer than a moment
    await until(lambda: len(leases.finished) == 5)
    assert leases.claims == claims + 1
    leases.due += owned("c", 1)
    leases.answers.set()
    await until(lambda: len(leases.finished) == 6)


async def test_requests_in_flight_take_slots_away_down_to_one(started: Any) -> None:
    flight = [3]
    leases, executor = Leases(40), Executor()
    started(leases, executor, interactive=lambda: flight[0])
    await until(lambda: executor.running == 1 and leases.claims > 0)
    flight[0] = 99
    executor.gate.set()
    await until(lambda: len(leases.finished) == 40)
    assert executor.most == 1
    flight[0] = 2
    executor.gate.clear()
    leases.due = Leases(9).due
    await until(lambda: executor.running == 2)


async def test_while_not_ready_nothing_is_claimed(started: Any) -> None:
    ready = [False]
    leases, executor = Leases(1), Executor()
    executor.gate.set()
    asked: list[bool] = []
    started(leases, executor, ready=lambda: (asked.append(True), ready[0])[1])
    await until(lambda: len(asked) > 3)
    assert leases.claims == 0
    ready[0] = True
    await until(lambda: len(leases.finished) == 1)


async def test_a_fault_of_the_time_is_tried_again_later_and_not_for_ever(started: Any) -> None:
    leases, executor = Leases(1), Executor("retry")
    executor.gate.set()
    started(leases, executor)
    await until(lambda: len(leases.finished) == 1)
    assert (leases.finished[0].kind, leases.finished[0].retry_at) == ("retry", 1001.0)
    leases.due = Leases(1, attempts=3).due
    await until(lambda: len(leases.finished) == 2)
    assert leases.finished[1].kind == "failed"
    leases.due = Leases(1, attempts=4).due  # each attempt before was cut off by a crash
    await until(lambda: len(leases.finished) == 3)
    assert leases.finished[2].answer_json == '{"given":"up"}'


async def test_while_the_database_is_gone_outcomes_wait(started: Any) -> None:
    leases, executor = Leases(8), Executor()
    started(leases, executor)
    await until(lambda: executor.running == 4)
    leases.gone = True
    executor.gate.set()
    claims = leases.claims
    await until(lambda: executor.running == 0 and leases.claims > claims + 2)
    assert leases.finished == []
    leases.gone = False
    await until(lambda: len(leases.finished) == 8)
    assert len({o.item.key for o in leases.finished}) == 8


async def test_a_fault_that_nobody_expects_ends_no_loop(
    started: Any, caplog: pytest.LogCaptureFixture
) -> None:
    leases, executor = Leases(8), Executor()
    started(leases, executor, lease_s=0.003)
    await until(lambda: executor.running == 4)
    leases.broken = True
    executor.gate.set()
    await until(lambda: caplog.text.count("and goes on") >= 9)
    leases.broken = False
    renewed = leases.renewed
    await until(lambda: len(leases.finished) == 8)
    executor.gate.clear()
    leases.due = Leases(1).due
    await until(lambda: leases.renewed > renewed)


async def test_leases_are_renewed_while_items_run(started: Any) -> None:
    leases, executor = Leases(2), Executor()
    started(leases, executor, lease_s=0.003)
    await until(lambda: leases.renewed >= 4)


async def test_a_cancelled_job_is_not_worked_on_any_more(started: Any) -> None:
    leases, executor = Leases(8), Executor()
    runner = started(leases, executor)
    await until(lambda: executor.running == 4 and len(runner._held) == 8)
    runner.stop("another")
    assert len(runner._held) == 8
    runner.stop("j")
    assert not runner._held
    await until(lambda: executor.running == 0)
    executor.gate.set()
    leases.due = [ClaimedItem("k", 0, "o", "{}", 1)]
    await until(lambda: len(leases.finished) == 1)
    assert leases.finished[0].item.job_id == "k"
    assert executor.most == 4


async def test_an_end_writes_what_is_done_and_gives_the_rest_back(started: Any) -> None:
    leases, executor = Leases(8), Executor()
    runner = started(leases, executor)
    await until(lambda: executor.running == 4)
    await runner.aclose()
    assert executor.running == 0
    assert sorted(item.index for item in leases.released) == list(range(8))
    leases, executor = Leases(1), Executor()
    executor.gate.set()
    runner = started(leases, executor)
    await until(lambda: len(runner._finished) + len(leases.finished) == 1)
    await runner.aclose()
    assert len(leases.finished) == 1
    assert leases.released == []


async def test_an_end_without_a_database_leaves_the_leases_to_run_out(
    started: Any, caplog: pytest.LogCaptureFixture
) -> None:
    leases, executor = Leases(1), Executor()
    runner = started(leases, executor)
    await until(lambda: executor.running == 1)
    leases.gone = True
    await runner.aclose()
    assert "1 items of jobs wait until their leases run out" in caplog.text


async def test_an_end_waits_little_for_a_database_that_hangs(
    started: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leases, executor = Leases(1), Executor()
    runner = started(leases, executor)
    await until(lambda: executor.running == 1)
    leases.answers.clear()
    claims = leases.claims
    await until(lambda: leases.claims > claims)
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.01)
    await runner.aclose()
    assert "1 items of jobs wait until their leases run out" in caplog.text
    leases.answers.set()


async def test_a_concurrency_of_0_leaves_jobs_to_others(started: Any) -> None:
    leases = Leases(1)
    runner = started(leases, Executor(), concurrency=0)
    runner.wake()
    await asyncio.sleep(0)
    assert leases.claims == 0


def test_the_waits_grow_and_30_attempts_outlast_20_minutes() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 7, 99)] == [1, 2, 4, 60, 60]
    assert sum(backoff_s(n) for n in range(1, 30)) > 20 * 60

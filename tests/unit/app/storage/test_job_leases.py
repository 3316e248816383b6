"""Which process works on what, and that each item is finished once."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.job_leases import JobLeases
from app.storage.job_records import ClaimedItem, ItemKind, ItemOutcome
from app.storage.jobs import Jobs
from app.storage.models import Job, JobItem
from app.storage.transaction import Work
from moe_router.errors import StorageError
from tests.stubs.sessions import session_on

LEASE_S = 10.0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = Database(f"sqlite:///{tmp_path}/x.sqlite3")
    yield found
    await found.aclose()


async def put(
    database: Database, job_id: str, items: int, owner: str = "o", at: float = 1.0, most: int = 9
) -> None:
    jobs = Jobs(database)
    assert await jobs.begin(job_id, owner, at=at, most=most)
    await jobs.append(job_id, 0, [f'{{"text":"{i}"}}' for i in range(items)])
    assert await jobs.submit(job_id, total=items, key=None, body_hash="h", at=at)


def leases(database: Database, holder: str = "a") -> JobLeases:
    return JobLeases(database, holder=holder, lease_s=LEASE_S)


def outcome(item: ClaimedItem, kind: ItemKind = "done", retry_at: float = 0.0) -> ItemOutcome:
    return ItemOutcome(item, kind, f'{{"answer":"{kind}"}}', retry_at)


async def test_what_is_claimed_is_nobody_elses_until_its_lease_ends(database: Database) -> None:
    await put(database, "j", 5)
    first, second = leases(database, "a"), leases(database, "b")
    mine = await first.claim(3, now=100.0)
    theirs = await second.claim(3, now=100.0)
    assert [item.index for item in mine] == [0, 1, 2]
    assert [item.index for item in theirs] == [3, 4]
    assert (mine[0].request_json, mine[0].owner, mine[0].attempts) == ('{"text":"0"}', "o", 1)
    assert await second.claim(3, now=109.9) == []
    await first.renew(mine, now=109.0)
    again = await second.claim(9, now=110.1)
    assert [item.index for item in again] == [3, 4]  # its own, whose lease ran out
    assert again[0].attempts == 2
    assert [item.index for item in await second.claim(9, now=119.1)] == [0, 1, 2]


async def test_whoever_lost_the_lease_writes_nothing(database: Database) -> None:
    await put(database, "j", 2)
    first, second = leases(database, "a"), leases(database, "b")
    mine = await first.claim(2, now=100.0)
    theirs = await second.claim(2, now=200.0)
    await first.finish([outcome(item, "failed") for item in mine], now=201.0)
    await first.release(mine)
    job = await Jobs(database).find("j", "o")
    assert job is not None
    assert (job.done, job.failed, job.state) == (0, 0, "running")
    await second.finish([outcome(item) for item in theirs], now=202.0)
    await second.finish([outcome(item) for item in theirs], now=203.0)  # a commit of unknown end, repeated
    job = await Jobs(database).find("j", "o")
    assert job is not None
    assert (job.done, job.failed, job.state, job.finished_at) == (2, 0, "succeeded", 202.0)
    rows = await Jobs(database).results("j", after=-1, limit=10)
    assert [(row.index, row.failed, row.answer_json) for row in rows] == [
        (0, False, '{"answer":"done"}'), (1, False, '{"answer":"done"}'),
    ]  # fmt: skip


async def test_what_is_retried_waits_for_its_time(database: Database) -> None:
    await put(database, "j", 1)
    one = leases(database)
    await one.finish([outcome(item, "retry", 150.0) for item in await one.claim(1, now=100.0)], now=101.0)
    assert await one.claim(1, now=149.0) == []
    (item,) = await one.claim(1, now=150.0)
    assert item.attempts == 2
    await one.finish([outcome(item, "failed")], now=151.0)
    job = await Jobs(database).find("j", "o")
    assert job is not None
    assert (job.state, job.failed) == ("failed", 1)


async def test_what_is_given_back_can_be_claimed_at_once(database: Database) -> None:
    await put(database, "j", 2)
    first = leases(database, "a")
    await first.release(await first.claim(2, now=100.0))
    assert [(i.index, i.attempts) for i in await leases(database, "b").claim(2, now=100.0)] == [
        (0, 1),
        (1, 1),
    ]


async def test_callers_share_what_is_claimed_at_once(database: Database) -> None:
    for job_id, owner, at in (("a1", "a", 1.0), ("a2", "a", 2.0), ("b1", "b", 3.0), ("c1", "c", 4.0)):
        await put(database, job_id, 4, owner, at)
    one = leases(database)

    async def claim(limit: int, **waiting: int) -> list[tuple[str, int]]:
        return [(i.job_id, i.index) for i in await one.claim(limit, now=100.0, waiting=waiting)]

    assert await claim(6) == [("a1", 0), ("a1", 1), ("b1", 0), ("b1", 1), ("c1", 0), ("c1", 1)]
    # What waits already counts: a has its share, b lacks one, and d has nothing due.
    assert await claim(8, a=2, b=1, d=1) == [("b1", 2), ("c1", 2), ("c1", 3)]
    assert await claim(99) == [("a1", 2), ("a1", 3), ("a2", 0), ("a2", 1), ("a2", 2), ("a2", 3), ("b1", 3)]
    assert await claim(99) == []
    job = await Jobs(database).find("c1", "c")
    assert job is not None
    assert (job.state, job.started_at) == ("running", 100.0)


async def test_callers_take_turns_where_there_is_not_one_for_each(database: Database) -> None:
    for owner in "abcde":
        await put(database, owner, 2, owner)
    one = leases(database)
    turns = ["".join(item.job_id for item in await one.claim(2, now=100.0)) for _ in range(5)]
    assert turns == ["ab", "cd", "ea", "bc", "de"]


async def test_jobs_that_cannot_be_marked_as_begun_are_worked_off_all_the_same(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job_id in ("j", "k"):
        await put(database, job_id, 2)
    transactions = 0

    async def one(work: Work[Any]) -> Any:
        nonlocal transactions
        transactions += 1
        if transactions > 1:
            raise StorageError("gone")
        return await Database.write(database, work)

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", one)
        held = await leases(database).claim(4, now=100.0)
    assert (len(held), transactions) == (4, 2)
    await leases(database).finish([outcome(held[0])], now=101.0)
    jobs = [await Jobs(database).find(job_id, "o") for job_id in ("j", "k")]
    assert [(job.state, job.started_at, job.done) for job in jobs if job is not None] == [
        ("running", 101.0, 1), ("queued", None, 0),
    ]  # fmt: skip
    await leases(database).release(held[2:])
    await leases(database).claim(4, now=102.0)
    job = await Jobs(database).find("k", "o")
    assert job is not None
    assert (job.state, job.started_at) == ("running", 102.0)


async def test_an_owner_whose_jobs_are_the_newest_has_a_share_all_the_same(database: Database) -> None:
    for owner in ("a", "b"):
        for number in range(60):
            await put(database, f"{owner}{number}", 2, owner, at=float(number), most=60)
    await put(database, "late", 1, "c", at=1e6)
    held = await leases(database).claim(12, now=100.0)
    assert Counter(item.owner for item in held) == {"a": 4, "b": 4, "c": 1}
    assert {item.job_id for item in held} == {"a0", "a1", "b0", "b1", "late"}  # each one's oldest


async def test_a_claim_looks_at_what_is_due_alone(tmp_path: Path) -> None:
    """By SQLite's plans: it looked at all jobs' items for each job."""
    database = Database(f"sqlite:///{tmp_path}/plans.sqlite3")
    await put(database, "j", 3)
    asked: list[tuple[str, Any]] = []

    def listen(*given: Any) -> None:
        asked.append((given[2], given[3]))

    event.listen(database._engine.sync_engine, "before_cursor_execute", listen)
    await leases(database).claim(2, now=100.0)
    event.remove(database._engine.sync_engine, "before_cursor_execute", listen)
    await database.aclose()
    with sqlite3.connect(tmp_path / "plans.sqlite3") as connection:
        plans = [
            row[3]
            for statement, values in asked
            if statement.startswith("SELECT")
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    of_items = [plan for plan in plans if "job_items" in plan]
    assert len(of_items) >= 3
    assert all("(job_id=? AND state=? AND lease_until<?)" in plan for plan in of_items)
    assert not any(plan.startswith("SCAN jobs") for plan in plans)


async def test_a_cancelled_jobs_items_are_neither_claimed_nor_finished(database: Database) -> None:
    await put(database, "j", 3)
    one, jobs = leases(database), Jobs(database)
    held = await one.claim(2, now=100.0)
    await one.finish([outcome(held[0])], now=101.0)
    job = await jobs.cancel("j", "o", at=102.0)
    assert job is not None
    assert (job.state, job.done) == ("cancelled", 1)
    assert await jobs.cancel("j", "another", at=102.0) is None
    await one.finish([outcome(held[1])], now=103.0)
    assert await one.claim(3, now=999.0) == []
    async with session_on(database) as session:
        states = list(await session.scalars(select(JobItem.state).order_by(JobItem.item_index)))
    assert states == ["done"]  # the texts of the others are gone


async def test_more_owners_than_one_query_takes_each_have_their_share(database: Database) -> None:
    owners = [f"{number:04}" for number in range(510)]
    rows = [{"id": o, "owner": o, "state": "queued", "total": 1, "created_at": 1.0} for o in owners]
    items = [{"job_id": o, "item_index": 0, "request_json": "{}", "lease_until": 0.0} for o in owners]

    async def add(session: AsyncSession) -> None:
        await session.execute(insert(Job), rows)
        await session.execute(insert(JobItem), items)

    await database.write(add)
    held = await leases(database).claim(512, now=100.0)
    assert [item.owner for item in held] == owners

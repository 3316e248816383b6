"""Jobs as callers see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.storage import jobs as module
from app.storage.database import Database
from app.storage.job_leases import JobLeases
from app.storage.job_records import ItemOutcome
from app.storage.jobs import Jobs
from app.storage.models import Job, JobItem
from moe_router.errors import StorageError
from tests.stubs.sessions import session_on


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = Database(f"sqlite:///{tmp_path}/x.sqlite3")
    yield found
    await found.aclose()


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


async def test_a_job_that_is_being_received_is_nobodys(jobs: Jobs, database: Database) -> None:
    await jobs.begin("j", "o", at=1.0, most=9)
    await jobs.append("j", 0, ["1", "2"])
    assert await jobs.find("j", "o") is None
    assert await jobs.cancel("j", "o", at=2.0) is None
    assert await JobLeases(database, holder="a", lease_s=1.0).claim(9, now=100.0) == []
    await jobs.discard("j")
    async with session_on(database) as session:
        assert await session.scalar(select(func.count()).select_from(JobItem)) == 0


async def test_a_key_belongs_to_one_job_of_a_caller(jobs: Jobs) -> None:
    for job_id, owner in (("j1", "o"), ("j2", "o"), ("j3", "p")):
        await jobs.begin(job_id, owner, at=1.0, most=9)
        await jobs.append(job_id, 0, ["1"])
    assert await jobs.submit("j1", total=1, key="k", body_hash="h", at=2.0)
    assert not await jobs.submit("j2", total=1, key="k", body_hash="h", at=2.0)
    assert await jobs.submit("j3", total=1, key="k", body_hash="h", at=2.0)
    found = await jobs.find_key("o", "k")
    assert found is not None
    assert (found.id, found.body_hash, found.state, found.created_at) == ("j1", "h", "queued", 2.0)


async def test_what_is_being_received_counts_as_unfinished_unless_a_crash_left_it(jobs: Jobs) -> None:
    assert await jobs.begin("j1", "o", at=100.0, most=2)
    assert await jobs.begin("j2", "o", at=100.0, most=2)
    assert not await jobs.begin("j3", "o", at=100.0, most=2)
    assert await jobs.begin("j4", "p", at=100.0, most=2)
    await jobs.append("j1", 0, ["1"])
    await jobs.submit("j1", total=1, key=None, body_hash="h", at=100.0)
    assert not await jobs.begin("j3", "o", at=101.0, most=2)
    later = 100.0 + module.ABANDONED_AFTER_S
    assert await jobs.begin("j3", "o", at=later, most=2)  # nobody sends j2 any more
    await jobs.cancel("j1", "o", at=later)
    assert await jobs.begin("j5", "o", at=later, most=2)


async def test_results_come_in_pages_by_index(jobs: Jobs, database: Database) -> None:
    await jobs.begin("j", "o", at=1.0, most=9)
    await jobs.append("j", 0, ["1"] * 3)
    await jobs.append("j", 3, ["1"] * 3)
    await jobs.submit("j", total=6, key=None, body_hash="h", at=1.0)
    leases = JobLeases(database, holder="a", lease_s=9.0)
    items = await leases.claim(6, now=10.0)
    await leases.finish([ItemOutcome(i, "done", f"{i.index}") for i in items if i.index != 2], now=11.0)
    assert [r.index for r in await jobs.results("j", after=-1, limit=3) or ()] == [0, 1, 3]
    assert [(r.index, r.answer_json) for r in await jobs.results("j", after=3, limit=9) or ()] == [
        (4, "4"), (5, "5"),
    ]  # fmt: skip
    assert await jobs.results("j", after=5, limit=9) == []
    assert await jobs.results("another", after=-1, limit=9) is None


async def test_all_of_one_owner_is_cancelled_what_arrives_too(jobs: Jobs, database: Database) -> None:
    for job_id, owner in (("j1", "o"), ("j2", "o"), ("done", "o"), ("other", "p"), ("arriving", "o")):
        await jobs.begin(job_id, owner, at=1.0, most=9)
        await jobs.append(job_id, 0, ["1"] * 2)
        if job_id != "arriving":
            await jobs.submit(job_id, total=2, key=None, body_hash="h", at=1.0)
    await jobs.cancel("done", "o", at=1.5)
    assert await jobs.cancel_all("o", at=2.0) == 2
    assert await jobs.cancel_all("o", at=3.0) == 0
    assert {(job.id, job.state, job.finished_at) for job in await jobs.newest(None, limit=9)} == {
        ("j1", "cancelled", 2.0), ("j2", "cancelled", 2.0), ("done", "cancelled", 1.5),
        ("other", "queued", None),
    }  # fmt: skip
    with pytest.raises(StorageError):
        await jobs.append("arriving", 2, ["1"])
    with pytest.raises(StorageError):
        await jobs.submit("arriving", total=2, key=None, body_hash="h", at=3.0)
    claimed = await JobLeases(database, holder="a", lease_s=1.0).claim(9, now=100.0)
    assert {item.job_id for item in claimed} == {"other"}
    left = await database.read(lambda session: session.scalars(select(JobItem.job_id).distinct()))
    assert set(left) == {"other"}  # the texts of what was cancelled are gone


async def test_what_is_past_its_time_is_forgotten_and_the_rest_stays(
    jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PURGE_ROWS", 2)
    for job_id, at in (("old", 1.0), ("running", 1.0), ("new", 1.0), ("broken-off", 1.0), ("arriving", 90.0)):
        await jobs.begin(job_id, "o", at=at, most=9)
        await jobs.append(job_id, 0, ["1"] * 5)
    for job_id in ("old", "running", "new"):
        await jobs.submit(job_id, total=5, key=job_id, body_hash="h", at=1.0)
    await jobs.cancel("old", "o", at=10.0)
    await jobs.cancel("new", "o", at=60.0)
    assert await jobs.purge(finished_before=50.0, abandoned_before=80.0) == 2
    assert await jobs.purge(finished_before=50.0, abandoned_before=80.0) == 0
    async with session_on(database) as session:
        assert set(await session.scalars(select(Job.id))) == {"running", "new", "arriving"}
        assert await session.scalar(select(func.count()).select_from(JobItem)) == 10  # "new" is cancelled
    assert await jobs.find_key("o", "old") is None

"""The repositories of jobs on a real PostgreSQL, by the very tests that SQLite has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.storage.database import Database
from app.storage.job_leases import JobLeases
from app.storage.jobs import Jobs
from tests.unit.app.storage.test_job_leases import *  # noqa: F403
from tests.unit.app.storage.test_job_leases import outcome, put
from tests.unit.app.storage.test_jobs import *  # noqa: F403


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    found = Database(postgres_url)
    yield found
    await found.aclose()


async def test_many_holders_at_once_share_every_item_and_count_right(postgres_url: str) -> None:
    """With cancels, renewals and claims of expired leases in between: no deadlock, nothing counted twice."""
    databases = [Database(postgres_url) for _ in range(4)]
    for job_id in ("a", "b", "c"):
        await put(databases[0], job_id, 200, owner=job_id)
    begun = asyncio.Event()

    async def work(number: int) -> None:
        leases = JobLeases(databases[number], holder=str(number), lease_s=0.05)
        now = 100.0
        while items := await leases.claim(7, now=now):
            now += 0.03  # some leases end before their items are finished
            await leases.renew(items[:3], now=now)
            await leases.release(items[5:])
            await leases.finish([outcome(item) for item in items[:5]], now=now)
            if now > 100.3:
                begun.set()

    async def cancel() -> None:
        await begun.wait()
        await Jobs(databases[0]).cancel("c", "c", at=1.0)

    async with asyncio.timeout(120):
        await asyncio.gather(*(work(number) for number in range(4)), cancel())
    jobs = Jobs(databases[0])
    for job_id in ("a", "b"):
        job = await jobs.find(job_id, job_id)
        assert job is not None
        assert (job.state, job.done) == ("succeeded", 200)
        assert [row.index for row in await jobs.results(job_id, after=-1, limit=999) or ()] == list(
            range(200)
        )
    cancelled = await jobs.find("c", "c")
    assert cancelled is not None
    assert cancelled.done == len(await jobs.results("c", after=-1, limit=999) or ()) < 200
    for database in databases:
        await database.aclose()

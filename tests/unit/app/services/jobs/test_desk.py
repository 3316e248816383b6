"""The desk: what it says of a job, and what it does when the database goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from app.services.jobs import desk as module
from app.services.jobs.desk import JobDesk, eta_seconds
from app.storage.identity import owner_name
from app.storage.job_leases import JobLeases
from app.storage.job_records import ItemOutcome, JobRow, ResultRow
from app.storage.storage import Storage
from moe_router.errors import (
    OverloadedError,
    QuotaExceededError,
    StorageError,
    TooManyJobsError,
    TooManyRequestsError,
    UnknownJobError,
)
from tests.stubs.serving import until


class Upload:
    digest = "d"

    def __init__(self, count: int, gate: asyncio.Event | None = None) -> None:
        self._count = count
        self._gate = gate
        self.reached = asyncio.Event()

    async def items(self) -> AsyncIterator[str]:
        for number in range(self._count):
            if self._gate is not None and number == self._count - 1:
                self.reached.set()
                await self._gate.wait()
            yield f'{{"text":"{number}"}}'

    async def skim(self) -> None:
        pass


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    found = Storage(f"sqlite:///{tmp_path}/x.sqlite3", retention_days=1, queue_size=1, count=lambda *_: None)
    yield found
    await found.aclose()


@pytest.fixture
async def desk(storage: Storage) -> AsyncIterator[JobDesk]:
    found = JobDesk(storage, max_unfinished=100, wake=lambda: None)
    yield found
    await found.aclose()


def row(**values: object) -> JobRow:
    given = {
        "id": "j", "owner": "o" * 64, "state": "running", "total": 10, "done": 3, "failed": 1,
        "created_at": 0.0, "started_at": 100.0, "finished_at": None, "body_hash": "h",
    }  # fmt: skip
    return JobRow(**(given | values))  # type: ignore[arg-type]


def test_the_rest_takes_as_long_as_what_is_done_did() -> None:
    assert eta_seconds(row(), 120.0) == 30.0
    assert eta_seconds(row(), 90.0) == 0.0  # another coordinator's clock
    for unknown in (row(done=0, failed=0), row(started_at=None), row(state="queued"), row(state="cancelled")):
        assert eta_seconds(unknown, 120.0) is None


async def test_items_of_many_batches_keep_their_order(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ITEMS", 3)
    monkeypatch.setattr(module, "PAGE", 4)
    job = await desk.submit("me", Upload(10), None)
    assert (job.total, job.state) == (10, "queued")
    leases = JobLeases(storage.database, holder="a", lease_s=60)
    items = await leases.claim(99, now=1e10)
    assert [item.request_json for item in items] == [f'{{"text":"{i}"}}' for i in range(10)]
    await leases.finish([ItemOutcome(item, "done", "{}") for item in items], now=1e10)
    pages = [page async for page in await desk.results("me", job.job_id)]
    assert [[found.index for found in page] for page in pages] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_job_that_is_stored_is_acknowledged_without_another_look(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise StorageError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(storage.jobs, "find", gone)
        job = await desk.submit("me", Upload(2), "k")
    assert job == await desk.look("me", job.job_id)
    assert job == await desk.submit("me", Upload(2), "k")


class Quota:
    def __init__(self, left: int) -> None:
        self.left = left

    def take_texts(self, texts: int) -> None:
        if texts > self.left:
            raise QuotaExceededError("no more today", 9)
        self.left -= texts

    def give_back_texts(self, texts: int) -> None:
        self.left += texts


async def test_a_job_that_is_not_taken_costs_nothing_of_the_quota(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = Quota(5)

    async def gone(*_: object, **__: object) -> bool:
        raise StorageError("gone")

    with pytest.raises(QuotaExceededError):
        await desk.submit("me", Upload(6), None, quota)
    with monkeypatch.context() as patch:
        patch.setattr(storage.jobs, "submit", gone)
        with pytest.raises(StorageError):
            await desk.submit("me", Upload(5), None, quota)
    upload = Upload(2, gate := asyncio.Event())
    late = asyncio.create_task(desk.submit("me", upload, "k", quota))
    await upload.reached.wait()
    job = await desk.submit("me", Upload(2), "k", quota)
    gate.set()
    assert await late == job
    assert quota.left == 3


async def test_uploads_that_end_at_once_do_not_pass_the_quota_together(
    desk: JobDesk, storage: Storage
) -> None:
    quota, gate = Quota(5), asyncio.Event()
    uploads = [Upload(4, gate) for _ in range(module.UPLOADS_PER_CALLER)]
    tasks = [asyncio.create_task(desk.submit("me", upload, None, quota)) for upload in uploads]
    for upload in uploads:
        await upload.reached.wait()
    gate.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(end, QuotaExceededError) for end in ends) == len(tasks) - 1
    assert quota.left == 1
    await desk.aclose()
    assert len((await desk.newest("me")).jobs) == 1


async def test_the_quota_counts_a_job_whose_caller_goes_while_it_is_handed_over(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota, submit = Quota(5), storage.jobs.submit
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(*given: Any, **named: Any) -> bool:
        begun.set()
        await gate.wait()
        return await submit(*given, **named)

    monkeypatch.setattr(storage.jobs, "submit", slow)
    submitting = asyncio.create_task(desk.submit("me", Upload(5), None, quota))
    await begun.wait()
    submitting.cancel()
    await asyncio.wait({submitting})
    gate.set()
    await desk.aclose()
    assert [job.state for job in (await desk.newest("me")).jobs] == ["queued"]
    assert quota.left == 0


async def test_a_caller_who_goes_while_a_job_is_opened_leaves_nothing(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun, gate = storage.jobs.begin, asyncio.Event(), asyncio.Event()

    async def slow(*given: Any, **named: Any) -> bool:
        begun.set()
        await gate.wait()
        return await begin(*given, **named)

    monkeypatch.setattr(storage.jobs, "begin", slow)
    submitting = asyncio.create_task(desk.submit("me", Upload(1), None))
    await begun.wait()
    submitting.cancel()
    await asyncio.wait({submitting})
    gate.set()
    await desk.aclose()
    assert await storage.jobs.purge(finished_before=0, abandoned_before=1e12) == 0


async def test_results_that_are_forgotten_while_they_are_read_break_off(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    job = await desk.submit("me", Upload(5), None)
    leases = JobLeases(storage.database, holder="a", lease_s=60)
    items = await leases.claim(99, now=1e10)
    await leases.finish([ItemOutcome(item, "done", "{}") for item in items], now=1e10)
    pages = await desk.results("me", job.job_id)
    assert len(await anext(pages)) == 2
    await storage.jobs.purge(finished_before=2e10, abandoned_before=2e10)
    with pytest.raises(UnknownJobError):
        await anext(pages)
    with pytest.raises(UnknownJobError):
        await desk.results("me", job.job_id)


async def test_whoever_sees_everybodys_jobs_is_told_whose_they_are(desk: JobDesk, storage: Storage) -> None:
    mine, theirs = await desk.submit("key:a", Upload(1), None), await desk.submit("key:b", Upload(1), None)
    assert mine.owner is None
    assert (await desk.look("key:a", mine.job_id)).owner is None
    owners = {caller: owner_name(await storage.callers.hash_of(caller)) for caller in ("key:a", "key:b")}
    seen = (await desk.newest("key:a", everybodys=True)).jobs
    assert {job.job_id: job.owner for job in seen} == {
        mine.job_id: owners["key:a"], theirs.job_id: owners["key:b"],
    }  # fmt: skip
    assert (await desk.look("key:a", theirs.job_id, everybodys=True)).owner == owners["key:b"]
    assert (await desk.cancel("key:a", theirs.job_id, everybodys=True)).owner == owners["key:b"]


async def test_results_wait_for_a_database_that_goes_in_the_middle(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 1)
    monkeypatch.setattr(module, "PAGE_RETRY_S", 0.001)
    job = await desk.submit("me", Upload(1), None)
    told: list[list[ResultRow] | None] = [
        [ResultRow(0, False, "{}")],
        None,
        None,
        [ResultRow(1, False, "{}")],
        [],
    ]

    async def results(_job_id: str, *, after: int, limit: int) -> list[ResultRow]:
        said = told.pop(0)
        if said is None:
            raise StorageError("gone")
        return said

    monkeypatch.setattr(storage.jobs, "results", results)
    assert [page[0].index async for page in await desk.results("me", job.job_id)] == [0, 1]
    told += [[ResultRow(0, False, "{}")], *[None] * (module.PAGE_ATTEMPTS + 1)]
    pages = await desk.results("me", job.job_id)
    with pytest.raises(StorageError):  # the answer breaks off, so that nobody takes it for whole
        [page async for page in pages]


async def test_one_callers_uploads_leave_room_for_others(desk: JobDesk) -> None:
    gate = asyncio.Event()
    held = [Upload(2, gate) for _ in range(module.UPLOADS_PER_CALLER)]
    tasks = [asyncio.create_task(desk.submit("dripping", upload, None)) for upload in held]
    for upload in held:
        await upload.reached.wait()
    with pytest.raises(TooManyRequestsError, match="uploads of jobs"):
        await desk.submit("dripping", Upload(2), None)
    assert (await desk.submit("other", Upload(2), None)).total == 2
    gate.set()
    assert [job.total for job in await asyncio.gather(*tasks)] == [2] * len(tasks)
    assert (await desk.submit("dripping", Upload(2), None)).total == 2


async def test_so_many_uploads_at_once_and_no_more(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UPLOADS_AT_ONCE", 1)
    desk = JobDesk(storage, max_unfinished=100, wake=lambda: None)
    gate = asyncio.Event()
    first = asyncio.create_task(desk.submit("me", Upload(2, gate), None))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await desk.submit("me", Upload(2), None)
    gate.set()
    assert (await first).total == 2
    assert (await desk.submit("me", Upload(2), None)).total == 2


async def test_jobs_on_their_way_in_count_against_the_callers_limit(storage: Storage) -> None:
    desk = JobDesk(storage, max_unfinished=1, wake=lambda: None)
    upload = Upload(2, gate := asyncio.Event())
    first = asyncio.create_task(desk.submit("me", upload, None))
    await upload.reached.wait()
    with pytest.raises(TooManyJobsError):
        await desk.submit("me", Upload(2), None)
    gate.set()
    assert (await first).total == 2


async def test_a_caller_who_goes_leaves_nothing(desk: JobDesk, storage: Storage) -> None:
    upload = Upload(2, asyncio.Event())
    submitting = asyncio.create_task(desk.submit("me", upload, "k"))
    await upload.reached.wait()
    submitting.cancel()
    await asyncio.gather(submitting, return_exceptions=True)
    await desk.aclose()
    assert await storage.jobs.purge(finished_before=0, abandoned_before=1e12) == 0


async def test_what_an_upload_left_is_forgotten_once_the_database_is_back(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISCARD_RETRY_S", 0.001)
    faults, discarded, forget = [1, 2], asyncio.Event(), storage.jobs.discard

    async def discard(job_id: str) -> None:
        if faults:
            raise StorageError(f"fault {faults.pop()}")
        await forget(job_id)
        discarded.set()

    async def append(*_: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(storage.jobs, "discard", discard)
    monkeypatch.setattr(storage.jobs, "append", append)
    with pytest.raises(StorageError, match="full"):
        await desk.submit("me", Upload(1), None)
    async with asyncio.timeout(10):
        await discarded.wait()


async def test_a_closed_desk_leaves_it_to_a_later_purge(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise StorageError("gone")

    monkeypatch.setattr(storage.jobs, "discard", gone)
    monkeypatch.setattr(storage.jobs, "append", gone)
    with pytest.raises(StorageError):
        await desk.submit("me", Upload(1), None)
    async with asyncio.timeout(10):
        await desk.aclose()


async def test_readers_of_jobs_leave_connections_to_others(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await desk.submit("me", Upload(1), None)
    reading, most, gate = 0, 0, asyncio.Event()
    find = storage.jobs.find

    async def slow(job_id: str, owner: str | None) -> JobRow | None:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await gate.wait()
        reading -= 1
        return await find(job_id, owner)

    monkeypatch.setattr(storage.jobs, "find", slow)
    looks = [asyncio.create_task(desk.look("me", job.job_id)) for _ in range(3 * module.READS_AT_ONCE)]
    await until(lambda: reading == module.READS_AT_ONCE)
    gate.set()
    assert {found.job_id for found in await asyncio.gather(*looks)} == {job.job_id}
    assert most == module.READS_AT_ONCE


async def test_a_reader_whose_answer_has_begun_waits_for_its_next_page(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    monkeypatch.setattr(module, "PAGE_RETRY_S", 0.0)
    job = await desk.submit("me", Upload(3), None)
    leases = JobLeases(storage.database, holder="a", lease_s=60)
    items = await leases.claim(99, now=1e10)
    await leases.finish([ItemOutcome(item, "done", "{}") for item in items], now=1e10)
    pages = await desk.results("me", job.job_id)
    assert len(await anext(pages)) == 2
    refusals = [OverloadedError("too many look")] * 2
    place = desk._reads.place

    def full(caller: str) -> AbstractAsyncContextManager[None]:
        if refusals:
            raise refusals.pop()
        return place(caller)

    monkeypatch.setattr(desk._reads, "place", full)
    assert [row.index for row in await anext(pages)] == [2]
    assert not refusals


async def test_an_end_waits_little_for_a_database_that_hangs(
    desk: JobDesk, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, quota = asyncio.Event(), Quota(1)

    async def hanging(_: str) -> None:
        await answers.wait()

    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.01)
    monkeypatch.setattr(storage.jobs, "discard", hanging)
    with pytest.raises(QuotaExceededError):
        await desk.submit("me", Upload(2), None, quota)
    async with asyncio.timeout(10):
        await desk.aclose()
    answers.set()

"""Jobs for their callers: taken item by item, looked at, cancelled, read."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from app.services.admission import Admission
from app.services.waiting import FairGate
from app.storage.identity import owner_name
from app.storage.job_records import JobRow, ResultRow
from moe_router.contracts import JobAnswer, JobsAnswer
from moe_router.errors import (
    IdempotencyConflictError,
    OverloadedError,
    StorageError,
    TooManyJobsError,
    UnknownJobError,
)

if TYPE_CHECKING:
    from app.storage.storage import Storage

logger = logging.getLogger(__name__)
T = TypeVar("T")

UPLOADS_AT_ONCE, UPLOADS_PER_CALLER = 16, 8
"""In one process; each holds up to a line and a batch in memory, for as long as its caller takes."""
BATCH_ITEMS = 200
BATCH_CHARS = 256 * 1024
PAGE = 200
LISTED = 100
READS_AT_ONCE = 4
"""Of the database's connections: readers of jobs leave the others to everything else."""
READS_WAITING = 1000
PAGE_RETRY_S = 1.0
PAGE_ATTEMPTS = 30
DISCARD_RETRY_S = 1.0
CLOSE_TIMEOUT_S = 5.0


class Upload(Protocol):
    """The items of a job on their way in."""

    def items(self) -> AsyncIterator[str]:
        """Each item as a JSON text.

        Raises:
            RequestError: the upload is too long, broken off, or no JSON.
        """

    async def skim(self) -> None:
        """Reads the upload to its end for its digest alone.

        Raises:
            RequestError: as `items`.
        """

    @property
    def digest(self) -> str:
        """SHA-256 of what was read, in hexadecimal."""


class Quota(Protocol):
    """What the caller may still send."""

    def take_texts(self, texts: int) -> None:
        """Counts texts.

        Raises:
            QuotaExceededError: so many are not left; none was counted.
        """

    def give_back_texts(self, texts: int) -> None:
        """Counts off texts that were taken."""


class JobDesk:
    """Takes jobs durably, and answers for those of the same caller only, or to an administrator for all.

    Args:
        storage: where they are.
        max_unfinished: bound for one caller.
        wake: called when there is something to work off.
        stop: called with the id of a job that is not to be worked off any more.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        max_unfinished: int,
        wake: Callable[[], None],
        stop: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._storage = storage
        self._jobs = storage.jobs
        self._max_unfinished = max_unfinished
        self._wake = wake
        self._stop = stop
        self._reads = FairGate(READS_AT_ONCE, READS_WAITING)
        self._uploads = Admission(UPLOADS_AT_ONCE, UPLOADS_PER_CALLER, of="uploads of jobs")
        self._tasks: set[asyncio.Task[Any]] = set()
        """which go on where the caller goes"""
        self._closed = asyncio.Event()

    @property
    def receiving(self) -> int:
        """Uploads that arrive now."""
        return self._uploads.requests

    async def submit(
        self, caller: str, upload: Upload, key: str | None, quota: Quota | None = None
    ) -> JobAnswer:
        """Stores a job durably before it returns; the same key and body again give the same job.

        What is refused takes nothing of the quota.

        Raises:
            RequestError: the upload is wrong.
            IdempotencyConflictError: the key was used with another body.
            QuotaExceededError: it has more items than the caller may send now.
            TooManyJobsError: the caller has as many unfinished jobs as it may, arriving ones included.
            TooManyRequestsError, OverloadedError: too many uploads at once, of the caller or in all.
            StorageError: the database cannot be used now; nothing was taken.
        """
        with self._uploads.request(caller):
            return await self._submit(await self._storage.callers.hash_of(caller), upload, key, quota)

    async def look(self, caller: str, job_id: str, *, everybodys: bool = False) -> JobAnswer:
        """How far a job is; `everybodys`: also where it is another caller's.

        Raises:
            UnknownJobError: the caller has no such job.
            OverloadedError: too many look.
            StorageError: the database cannot be used now.
        """
        async with self._reads.place(caller):
            found = await self._find(await self._owner(caller, everybodys), job_id)
        return self._answer(found, everybodys=everybodys)

    async def newest(self, caller: str, *, everybodys: bool = False) -> JobsAnswer:
        """The caller's newest jobs, or everybody's, newest first.

        Raises:
            OverloadedError: too many look.
            StorageError: the database cannot be used now.
        """
        async with self._reads.place(caller):
            owner = await self._owner(caller, everybodys)
            found = await self._jobs.newest(owner, limit=LISTED)
        return JobsAnswer(jobs=[self._answer(row, everybodys=everybodys) for row in found])

    async def cancel(self, caller: str, job_id: str, *, everybodys: bool = False) -> JobAnswer:
        """Cancels a job; one that is finished stays as it is. What is done can still be read.

        Raises:
            UnknownJobError: the caller has no such job.
            StorageError: the database cannot be used now; nothing was cancelled.
        """
        owner = await self._owner(caller, everybodys)
        found = await asyncio.shield(self._keep(self._cancel(job_id, owner)))
        if found is None:
            raise _unknown(job_id)
        return self._answer(found, everybodys=everybodys)

    async def results(
        self, caller: str, job_id: str, *, everybodys: bool = False
    ) -> AsyncIterator[list[ResultRow]]:
        """Pages of the finished items by index; the first one is read before this returns.

        Raises:
            UnknownJobError: the caller has no such job.
            OverloadedError: too many look.
            StorageError: the database cannot be used now.
        """
        async with self._reads.place(caller):
            await self._find(await self._owner(caller, everybodys), job_id)
            first = await self._jobs.results(job_id, after=-1, limit=PAGE)
        if first is None:
            raise _unknown(job_id)
        return self._pages(caller, job_id, first)

    async def aclose(self) -> None:
        """Waits until uploads are handed over or forgotten, where that is possible soon."""
        self._closed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._tasks:  # one that is not handed over leaves one that forgets it
                    await asyncio.wait(self._tasks)

    async def _submit(self, owner: str, upload: Upload, key: str | None, quota: Quota | None) -> JobAnswer:
        earlier = await self._jobs.find_key(owner, key) if key is not None else None
        if earlier is not None:
            await upload.skim()
            return self._same(earlier, upload)
        job_id, most = uuid.uuid4().hex, self._max_unfinished
        opening = self._keep(self._jobs.begin(job_id, owner, at=self._storage.clock(), most=most))
        try:
            opened = await asyncio.shield(opening)
            total = await self._store(job_id, upload) if opened else 0
        except BaseException:  # a cancellation, too
            self._keep(self._forget(job_id, opening))
            raise
        if not opened:
            raise TooManyJobsError(f"{most} of your jobs are unfinished; that is the limit.")
        made = JobRow(job_id, owner, "queued", total, 0, 0, self._storage.clock(), None, None, upload.digest)
        if not await asyncio.shield(self._keep(self._hand_over(made, key, quota))) and key is not None:
            return self._same(await self._jobs.find_key(owner, key), upload)  # it came twice at once
        # Not read back: where that failed, the answer would be an error, and who repeats has two jobs.
        return self._answer(made)

    async def _hand_over(self, made: JobRow, key: str | None, quota: Quota | None) -> bool:
        """Hands a whole upload over; False where the key is another job's.

        A task of its own: who takes texts of the quota must learn whether the job was stored.
        """
        handed, taken = False, 0
        try:
            if quota is not None:
                quota.take_texts(made.total)
                taken = made.total
            handed = await self._jobs.submit(
                made.id, total=made.total, key=key, body_hash=made.body_hash or "", at=made.created_at
            )
        finally:
            if handed:
                self._wake()
            else:
                self._keep(self._forget(made.id))
                if quota is not None:
                    quota.give_back_texts(taken)
        return handed

    async def _cancel(self, job_id: str, owner: str | None) -> JobRow | None:
        found = await self._jobs.cancel(job_id, owner, at=self._storage.clock())
        if found is not None and found.state == "cancelled":
            self._stop(job_id)
        return found

    async def _store(self, job_id: str, upload: Upload) -> int:
        """Writes the items in batches; returns how many there are."""
        batch: list[str] = []
        stored = chars = 0
        async for item in upload.items():
            batch.append(item)
            chars += len(item)
            if len(batch) >= BATCH_ITEMS or chars >= BATCH_CHARS:
                await self._jobs.append(job_id, stored, batch)
                stored += len(batch)
                batch, chars = [], 0
        if batch:
            await self._jobs.append(job_id, stored, batch)
        return stored + len(batch)

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of its own: the caller may go, and the request be cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, also where nobody waits for it any more

    async def _forget(self, job_id: str, opening: asyncio.Task[bool] | None = None) -> None:
        """Tries until it succeeds, or the desk is closed: what is left counts as one of the caller's jobs.

        `opening`: that of the job, which may still be under way.
        """
        if opening is not None:
            await asyncio.wait({opening})
            if opening.exception() is not None or not opening.result():
                return None
        while True:
            try:
                return await self._jobs.discard(job_id)
            except StorageError:
                if self._closed.is_set():  # a later purge finds it
                    logger.warning("what an upload left is forgotten later")
                    return None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), DISCARD_RETRY_S)

    def _same(self, earlier: JobRow | None, upload: Upload) -> JobAnswer:
        if earlier is None or earlier.body_hash != upload.digest:
            raise IdempotencyConflictError("Idempotency-Key: was used for another body; take a new one.")
        return self._answer(earlier)

    async def _pages(
        self, caller: str, job_id: str, first: list[ResultRow]
    ) -> AsyncIterator[list[ResultRow]]:
        page = first
        while page:
            yield page
            page = await self._page(caller, job_id, page[-1].index) if len(page) == PAGE else []

    async def _page(self, caller: str, job_id: str, after: int) -> list[ResultRow]:
        """The next page; the answer has begun, so that a database that is gone is waited for.

        Raises:
            UnknownJobError: the job was forgotten meanwhile; the answer breaks off, and does not look whole.
        """
        for _ in range(PAGE_ATTEMPTS):
            try:
                return await self._read_page(caller, job_id, after)
            except (StorageError, OverloadedError):
                await asyncio.sleep(PAGE_RETRY_S)
        return await self._read_page(caller, job_id, after)

    async def _read_page(self, caller: str, job_id: str, after: int) -> list[ResultRow]:
        async with self._reads.place(caller):
            page = await self._jobs.results(job_id, after=after, limit=PAGE)
        if page is None:
            raise _unknown(job_id)
        return page

    async def _owner(self, caller: str, everybodys: bool) -> str | None:
        """Whose jobs are meant; None for everybody's."""
        return None if everybodys else await self._storage.callers.hash_of(caller)

    async def _find(self, owner: str | None, job_id: str) -> JobRow:
        found = await self._jobs.find(job_id, owner)
        if found is None:
            raise _unknown(job_id)
        return found

    def _answer(self, row: JobRow, *, everybodys: bool = False) -> JobAnswer:
        return JobAnswer.model_validate(
            {
                "job_id": row.id,
                "state": row.state,
                "total": row.total,
                "done": row.done,
                "failed": row.failed,
                "created_at": _time(row.created_at),
                "finished_at": _time(row.finished_at) if row.finished_at is not None else None,
                "eta_seconds": eta_seconds(row, self._storage.clock()),
                "owner": owner_name(row.owner) if everybodys else None,
            }
        )


def eta_seconds(row: JobRow, now: float) -> float | None:
    """What is left, at the mean pace since the job was begun; None before the first item and at the end."""
    worked = row.done + row.failed
    if row.state != "running" or row.started_at is None or not worked:
        return None
    pace_s = max(now - row.started_at, 0.0) / worked
    return round((row.total - worked) * pace_s, 1)


def _unknown(job_id: str) -> UnknownJobError:
    return UnknownJobError(f"You have no job {job_id[:64]}, or it has expired.")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")

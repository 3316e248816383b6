"""Jobs as their callers see them: taken, looked at, cancelled, read, forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import ColumnElement, Delete, and_, delete, func, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.job_records import JobRow, ResultRow
from app.storage.models import Job, JobItem
from moe_router.errors import StorageError

ABANDONED_AFTER_S = 3600.0
"""An upload is over long before; what still counts as being received then was left by a crash."""
PURGE_ROWS = 2000
"""Items in one transaction, so that no writer waits for long."""
UNFINISHED = ("queued", "running")
RECEIVING = "receiving"
_GONE = "What was uploaded until now is gone from the database."
_COLUMNS = tuple(getattr(Job, name) for name in JobRow.__dataclass_fields__)


class Jobs:
    """The tables `jobs` and `job_items`; a job that is still being received is nobody's yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, job_id: str, owner: str, *, at: float, most: int) -> bool:
        """Opens a job whose items follow; nothing sees it before `submit`.

        False where the owner has `most` unfinished jobs, those that are being received included. Of several
        processes on one PostgreSQL each may let one more in at the same moment.

        Raises:
            StorageError: the database cannot be used now.
        """
        arriving = and_(Job.state == RECEIVING, Job.created_at > at - ABANDONED_AFTER_S)
        held = select(func.count()).where(Job.owner == owner, or_(Job.state.in_(UNFINISHED), arriving))
        row = {"id": job_id, "owner": owner, "state": RECEIVING, "total": 0, "created_at": at}

        async def open_one(session: AsyncSession) -> bool:
            if (await session.execute(held)).scalar_one() >= most:
                return False
            await session.execute(insert(Job).values(**row))
            return True

        return await self._database.write(open_one)

    async def append(self, job_id: str, first: int, items: Sequence[str]) -> None:
        """Stores items, as JSON texts, from index `first` on.

        Raises:
            StorageError: the database cannot be used now, or the job is gone with the database that held it;
                none of these was stored.
        """
        rows = [
            {"job_id": job_id, "item_index": first + i, "request_json": item, "lease_until": 0.0}
            for i, item in enumerate(items)
        ]
        try:
            await self._database.write(lambda session: session.execute(insert(JobItem), rows))
        except IntegrityError as error:
            raise StorageError(_GONE) from error

    async def submit(self, job_id: str, *, total: int, key: str | None, body_hash: str, at: float) -> bool:
        """Hands the job over to be worked off; False where the caller's key is taken by another job.

        Raises:
            StorageError: the database cannot be used now, or the job is gone, as with a key that was revoked.
        """
        values = {"idempotency_key": key, "body_hash": body_hash, "total": total, "created_at": at}
        received = update(Job).where(Job.id == job_id, Job.state == RECEIVING)
        handed = received.values(state="queued", **values).returning(Job.id)
        try:
            found = await self._database.write(lambda session: session.scalar(handed))
        except IntegrityError:
            return False
        if found is None:
            raise StorageError(_GONE)
        return True

    async def discard(self, job_id: str) -> None:
        """Forgets a job that was never handed over.

        Raises:
            StorageError: the database cannot be used now; `purge` will do it.
        """
        left = delete(Job).where(Job.id == job_id, Job.state == RECEIVING)
        await self._database.write(lambda session: session.execute(left))

    async def find(self, job_id: str, owner: str | None) -> JobRow | None:
        """The job of that id, if it is that owner's; None as the owner: whosever it is.

        Raises:
            StorageError: the database cannot be used now.
        """
        return await self._one(Job.id == job_id, _owned(owner))

    async def find_key(self, owner: str, key: str) -> JobRow | None:
        """The caller's job of that idempotency key.

        Raises:
            StorageError: the database cannot be used now.
        """
        return await self._one(Job.owner == owner, Job.idempotency_key == key)

    async def newest(self, owner: str | None, *, limit: int) -> list[JobRow]:
        """The owner's jobs, or everybody's, newest first.

        Raises:
            StorageError: the database cannot be used now.
        """
        query = select(*_COLUMNS).where(_owned(owner), Job.state != RECEIVING)
        newest = query.order_by(Job.created_at.desc()).limit(limit)

        async def read(session: AsyncSession) -> list[JobRow]:
            return [JobRow(*row) for row in await session.execute(newest)]

        return await self._database.read(read)

    async def cancel(self, job_id: str, owner: str | None, *, at: float) -> JobRow | None:
        """Cancels the owner's job, or whosever it is; one that is finished stays as it is.

        None: there is none.

        Raises:
            StorageError: the database cannot be used now; nothing was cancelled.
        """
        await self._cancel(Job.id == job_id, _owned(owner), at=at)
        return await self.find(job_id, owner)

    async def cancel_all(self, owner: str, *, at: float) -> int:
        """Cancels what is unfinished of one owner's, and what arrives just now; returns how many.

        Raises:
            StorageError: the database cannot be used now; some may be cancelled.
        """
        arriving = delete(Job).where(Job.owner == owner, Job.state == RECEIVING, Job.finished_at.is_(None))
        await self._database.write(lambda session: session.execute(arriving))
        query = select(Job.id).where(Job.owner == owner, Job.state.in_(UNFINISHED))

        async def read(session: AsyncSession) -> Sequence[str]:
            return (await session.scalars(query)).all()

        found = await self._database.read(read)
        return sum([await self._cancel(Job.id == job_id, at=at) for job_id in found])

    async def _cancel(self, *of: ColumnElement[bool], at: float) -> bool:
        """Cancels one job; False where it was finished already, or is none of these."""
        unfinished = update(Job).where(Job.state.in_(UNFINISHED), *of)
        ending = unfinished.values(state="cancelled", finished_at=at).returning(Job.id)

        async def end(session: AsyncSession) -> bool:
            ended = await session.scalar(ending)
            # Nobody reads them any more, and they hold the caller's texts.
            items = delete(JobItem).where(JobItem.job_id == ended, JobItem.state.in_(("pending", "claimed")))
            if ended is not None:
                await session.execute(items)
            return ended is not None

        return await self._database.write(end)

    async def results(self, job_id: str, *, after: int, limit: int) -> list[ResultRow] | None:
        """The next finished items by index, those above `after`; None where the job is gone.

        Raises:
            StorageError: the database cannot be used now.
        """
        query = (
            select(JobItem.item_index, JobItem.state, JobItem.answer_json)
            .where(
                JobItem.job_id == job_id,
                JobItem.item_index > after,
                JobItem.state.in_(("done", "failed")),
            )
            .order_by(JobItem.item_index)
            .limit(limit)
        )
        there = select(Job.id).where(Job.id == job_id, Job.state != RECEIVING)

        async def read(session: AsyncSession) -> list[ResultRow] | None:
            rows = (await session.execute(query)).all()
            if await session.scalar(there) is None:  # looked at last: `purge` hides a job before its items go
                return None
            return [ResultRow(index, state == "failed", answer or "{}") for index, state, answer in rows]

        return await self._database.read(read)

    async def purge(self, *, finished_before: float, abandoned_before: float) -> int:
        """Forgets what finished, or began to be received, before a Unix time; returns how many.

        Raises:
            StorageError: the database cannot be used now.
        """
        # Out of sight first: nobody must read half of a job's results. A crash leaves it to the next purge.
        past = update(Job).where(Job.finished_at < finished_before, Job.state != RECEIVING)
        hidden = past.values(state=RECEIVING, idempotency_key=None)
        await self._database.write(lambda session: session.execute(hidden))
        left = select(Job.id).where(Job.state == RECEIVING, Job.created_at < abandoned_before)

        async def read(session: AsyncSession) -> Sequence[str]:
            return (await session.scalars(left)).all()

        gone = await self._database.read(read)
        for job_id in gone:
            await self._remove(job_id)
        return len(gone)

    async def _remove(self, job_id: str) -> None:
        last = select(func.max(JobItem.item_index)).where(JobItem.job_id == job_id)
        count = (await self._database.read(lambda session: session.scalar(last)) or 0) + 1
        for below in range(PURGE_ROWS, count + PURGE_ROWS, PURGE_ROWS):
            part = delete(JobItem).where(JobItem.job_id == job_id, JobItem.item_index < below)
            await self._database.write(partial(_run, part))
        await self.discard(job_id)

    async def _one(self, *conditions: ColumnElement[bool]) -> JobRow | None:
        query = select(*_COLUMNS).where(Job.state != RECEIVING, *conditions)

        async def read(session: AsyncSession) -> JobRow | None:
            row = (await session.execute(query)).first()
            return JobRow(*row) if row is not None else None

        return await self._database.read(read)


async def _run(statement: Delete, session: AsyncSession) -> None:
    await session.execute(statement)


def _owned(owner: str | None) -> ColumnElement[bool]:
    return true() if owner is None else Job.owner == owner

"""Items of jobs as the coordinators share them: claimed for a time, finished once, given back.

Whoever changes claimed items locks their job's row first, one job in a transaction; a claim locks items
alone, of several jobs, then in a second transaction these jobs' rows, and skips what others hold, so that it
waits for nobody: so coordinators on one PostgreSQL cannot block each other for good.
Leases are compared by the coordinators' clocks: these must agree within a fraction of a lease.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    exists,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.job_records import ClaimedItem, ItemOutcome
from app.storage.jobs import UNFINISHED
from app.storage.models import Job, JobItem
from moe_router.errors import StorageError

OWNERS_AT_ONCE = 100
"""In one query: SQLite takes no more than 500 parts of a union."""
_STATES = {"done": "done", "failed": "failed", "retry": "pending"}


@dataclass(frozen=True, slots=True)
class _Due:
    """A job some of whose items can be claimed."""

    id: str
    owner: str
    state: str


class JobLeases:
    """What one process holds; `holder` names it among all that use the database.

    Args:
        database: where the jobs are.
        holder: at most 64 characters, another one for each process and start.
        lease_s: how long a claim lasts unless it is renewed, in seconds.
    """

    def __init__(self, database: Database, *, holder: str, lease_s: float) -> None:
        self._database = database
        self._holder = holder
        self._lease_s = lease_s
        self._last_owner: str | None = None

    async def claim(
        self, limit: int, *, now: float, waiting: Mapping[str, int] = MappingProxyType({})
    ) -> list[ClaimedItem]:
        """Takes up to `limit` items in all, so that each owner who has some due gets an equal share of these.

        Where not even one is left for each, owners take turns.

        Args:
            limit: bound.
            now: Unix time in seconds.
            waiting: items that were claimed before and nobody has begun, by owner; they count for its share.

        Raises:
            StorageError: the database cannot be used now.
        """
        turns = await self._in_turn(limit, now)
        share = max(limit // max(len({*turns, *waiting}), 1), 1)
        jobs = await self._with_due_items(turns, share, now)
        held, room = Counter(waiting), limit - len(waiting)

        async def take(session: AsyncSession) -> list[ClaimedItem]:
            found: list[ClaimedItem] = []
            for job in jobs:
                wanted = min(share - held[job.owner], room - len(found))
                if wanted > 0:
                    taken = await self._claim_from(session, job, wanted, now)
                    held[job.owner] += len(taken)
                    found += taken
            return found

        found = await self._database.write(take) if jobs else []
        if begun := {item.job_id for item in found} & {job.id for job in jobs if job.state == "queued"}:
            await self._mark_running(begun, now)
        if found:
            self._last_owner = found[-1].owner
        return found

    async def renew(self, items: Sequence[ClaimedItem], *, now: float) -> None:
        """Prolongs the leases of what this process still works on.

        Raises:
            StorageError: the database cannot be used now.
        """
        await self._change(items, {"lease_until": now + self._lease_s})

    async def release(self, items: Sequence[ClaimedItem]) -> None:
        """Gives items back that were not worked on to the end; the attempt does not count.

        Raises:
            StorageError: the database cannot be used now; the leases will run out.
        """
        back = {"state": "pending", "claimed_by": None, "lease_until": 0.0}
        await self._change(items, back | {"attempts": JobItem.attempts - 1})

    async def finish(self, outcomes: Sequence[ItemOutcome], *, now: float) -> None:
        """Writes what came of items, those of one job all or none; of items whose lease was lost, nothing.

        May be repeated after a failure, also where some or all was written after all.

        Raises:
            StorageError: the database cannot be used now.
        """
        jobs: dict[str, list[ItemOutcome]] = defaultdict(list)
        for outcome in outcomes:
            jobs[outcome.item.job_id].append(outcome)
        for job_id, found in jobs.items():
            await self._database.write(partial(self._finish_of, job_id, found, now))

    async def _change(self, items: Sequence[ClaimedItem], values: dict[str, Any]) -> None:
        """Changes what this process holds of these."""
        jobs: dict[str, list[int]] = defaultdict(list)
        for item in items:
            jobs[item.job_id].append(item.index)
        for job_id, indexes in jobs.items():
            await self._database.write(partial(self._change_of, job_id, indexes, values))

    async def _change_of(
        self, job_id: str, indexes: Sequence[int], values: dict[str, Any], session: AsyncSession
    ) -> None:
        mine = update(JobItem).where(JobItem.job_id == job_id, self._holds(indexes))
        await session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
        await session.execute(mine.values(values))

    async def _in_turn(self, limit: int, now: float) -> list[str]:
        """The first owners who have something due, from the one after the last on, and then around."""
        last = self._last_owner
        later = [Job.owner > last] if last is not None else []

        async def read(session: AsyncSession) -> list[str]:
            found = list(await session.scalars(_owners(now, *later).limit(limit)))
            if last is not None and len(found) < limit:
                around = _owners(now, Job.owner <= last).limit(limit - len(found))
                found += await session.scalars(around)
            return found

        return await self._database.read(read)

    async def _with_due_items(self, owners: Sequence[str], most: int, now: float) -> list[_Due]:
        """Each one's oldest jobs of which items are due: from one of these at least one can be claimed."""

        async def read(session: AsyncSession) -> list[_Due]:
            found: list[_Due] = []
            for first in range(0, len(owners), OWNERS_AT_ONCE):
                query = _oldest_due(owners[first : first + OWNERS_AT_ONCE], most, now)
                found += [_Due(*row) for row in await session.execute(query)]
            return found

        return await self._database.read(read) if owners else []

    async def _claim_from(
        self, session: AsyncSession, job: _Due, limit: int, now: float
    ) -> list[ClaimedItem]:
        rows: list[Any] = []
        for state in ("pending", "claimed"):  # what was never tried goes before what a crash left
            due = (
                select(JobItem.item_index, JobItem.request_json, JobItem.attempts)
                .where(JobItem.job_id == job.id, JobItem.state == state, JobItem.lease_until <= now)
                .order_by(JobItem.lease_until, JobItem.item_index)  # as the index has them
                .limit(limit - len(rows))
                .with_for_update(skip_locked=True)
            )
            rows += (await session.execute(due)).all() if len(rows) < limit else []
        taken = update(JobItem).where(
            JobItem.job_id == job.id, JobItem.item_index.in_([row.item_index for row in rows])
        )
        values = {"state": "claimed", "claimed_by": self._holder, "attempts": JobItem.attempts + 1}
        if rows:
            await session.execute(taken.values(lease_until=now + self._lease_s, **values))
        return [
            ClaimedItem(job.id, row.item_index, job.owner, row.request_json, row.attempts + 1) for row in rows
        ]

    async def _mark_running(self, job_ids: Collection[str], now: float) -> None:
        """Where that fails, or a row is another's just now, whoever finishes an item puts it right.

        A transaction of its own: the claim holds items, and a job's row is locked before these.
        """
        queued = select(Job.id).where(Job.id.in_(job_ids), Job.state == "queued")
        begun = update(Job).where(Job.id.in_(queued.with_for_update(skip_locked=True)))
        with suppress(StorageError):  # logged where it arose; what was claimed must not be lost with it
            running = begun.values(state="running", started_at=now)
            await self._database.write(lambda session: session.execute(running))

    async def _finish_of(
        self, job_id: str, outcomes: Sequence[ItemOutcome], now: float, session: AsyncSession
    ) -> None:
        columns = Job.state, Job.started_at, Job.total, Job.done, Job.failed
        query = select(*columns).where(Job.id == job_id).with_for_update()
        job = (await session.execute(query)).first()
        if job is None or job.state not in UNFINISHED:  # cancelled in the meantime
            return
        indexes = [outcome.item.index for outcome in outcomes]
        own = select(JobItem.item_index).where(JobItem.job_id == job_id, self._holds(indexes))
        held = set(await session.scalars(own))
        kept = {o.item.index: o for o in outcomes if o.item.index in held}
        if not kept:
            return
        connection = await session.connection()
        await connection.execute(_WRITE, [_row(outcome, now) for outcome in kept.values()])
        kinds = [outcome.kind for outcome in kept.values()]
        done, failed = job.done + kinds.count("done"), job.failed + kinds.count("failed")
        values: dict[str, Any] = {"done": done, "failed": failed}
        if job.state == "queued":
            values |= {"state": "running", "started_at": now}
        if done + failed == job.total:
            values |= {"state": "succeeded" if done else "failed", "finished_at": now}
        await session.execute(update(Job).where(Job.id == job_id).values(**values))

    def _holds(self, indexes: Sequence[int]) -> ColumnElement[bool]:
        return and_(
            JobItem.item_index.in_(indexes),
            JobItem.state == "claimed",
            JobItem.claimed_by == self._holder,
        )


_WRITE = (
    update(JobItem)
    .where(JobItem.job_id == bindparam("of_job"), JobItem.item_index == bindparam("of_index"))
    .values(
        state=bindparam("to_state"),
        answer_json=bindparam("to_answer"),
        lease_until=bindparam("to_lease"),
        finished_at=bindparam("to_finished"),
        claimed_by=None,
    )
)


def _row(outcome: ItemOutcome, now: float) -> dict[str, Any]:
    again = outcome.kind == "retry"
    return {
        "of_job": outcome.item.job_id,
        "of_index": outcome.item.index,
        "to_state": _STATES[outcome.kind],
        "to_answer": None if again else outcome.answer_json,
        "to_lease": outcome.retry_at if again else None,
        "to_finished": None if again else now,
    }


def _due(now: float) -> tuple[ColumnElement[bool], ...]:
    """That items of a job can be claimed."""
    due = exists().where(
        JobItem.job_id == Job.id,
        JobItem.state.in_(("pending", "claimed")),
        JobItem.lease_until <= now,
    )
    return Job.state.in_(UNFINISHED), due


def _oldest_due(owners: Sequence[str], most: int, now: float) -> Select[str, str, str]:
    """Up to `most` jobs of each owner with due items, the oldest first, owners in their order."""
    oldest = [
        select(Job.id, Job.owner, Job.state, Job.created_at, literal(place).label("place"))
        .where(Job.owner == owner, *_due(now))
        .order_by(Job.created_at)
        .limit(most)
        .subquery()
        for place, owner in enumerate(owners)
    ]
    all_of = union_all(*(select(one) for one in oldest)).subquery().c
    return select(all_of.id, all_of.owner, all_of.state).order_by(all_of.place, all_of.created_at)


def _owners(now: float, *of: ColumnElement[bool]) -> Select[str]:
    """Those who have something due, in their order.

    Nested, so that a job's items are looked for only until the first owners are found, and of an owner only
    until the first job.
    """
    unfinished = select(Job.owner).where(Job.state.in_(UNFINISHED), *of).group_by(Job.owner).subquery()
    first = exists().where(Job.owner == unfinished.c.owner, *_due(now))
    return select(unfinished.c.owner).where(first).order_by(unfinished.c.owner)

"""Gating's decisions: written in batches, found by request id, forgotten after a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Table, delete, insert, select

from app.storage.callers import Callers
from app.storage.database import Database
from app.storage.models import Decision
from app.storage.records import DecisionRecord, FoundDecision

PURGE_ROWS = 1000
"""In one transaction, so that no writer waits for long."""


TABLE = cast(Table, Decision.__table__)
COLUMNS = tuple(DecisionRecord.__dataclass_fields__)


class Decisions:
    """The table `decisions`."""

    def __init__(self, database: Database, callers: Callers) -> None:
        self._database = database
        self._callers = callers

    async def add(self, records: Sequence[DecisionRecord]) -> None:
        """Writes records, all or none.

        Raises:
            StorageError: the database cannot be used now.
        """
        rows = []
        for record in records:
            row = {name: getattr(record, name) for name in COLUMNS}
            row["caller"] = await self._callers.hash_of(record.caller)
            rows.append(row)
        async with self._database.write() as session:
            # The table, not the class: the mapper would take as long again as the rest.
            await session.execute(insert(TABLE), rows)

    async def find(self, request_id: str, caller_hash: str) -> FoundDecision | None:
        """The newest decision of that request id: the caller's own, else anybody's.

        Raises:
            StorageError: the database cannot be used now.
        """
        own_first = (Decision.caller == caller_hash).desc()
        query = select(Decision.id, Decision.task).where(Decision.request_id == request_id)
        async with self._database.read() as session:
            row = (await session.execute(query.order_by(own_first, Decision.id.desc()).limit(1))).first()
        return FoundDecision(row.id, row.task) if row is not None else None

    async def purge(self, before: float) -> int:
        """Forgets what is older than a Unix time; returns how many. Feedback rows stay.

        Raises:
            StorageError: the database cannot be used now.
        """
        old = select(Decision.id).where(Decision.created_at < before).order_by(Decision.created_at)
        total = 0
        while True:
            async with self._database.write() as session:
                gone = (await session.scalars(old.limit(PURGE_ROWS))).all()
                if gone:
                    await session.execute(delete(Decision).where(Decision.id.in_(gone)))
            total += len(gone)
            if len(gone) < PURGE_ROWS:
                return total

"""Forgets rows a part at a time."""

from __future__ import annotations

from sqlalchemy import Select, delete
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.models import Decision, Feedback

PURGE_ROWS = 1000
"""In one transaction, so that no writer waits for long."""


async def purge_rows(database: Database, table: type[Decision | Feedback], due: Select[int]) -> int:
    """Deletes the rows of a table whose ids a query gives; returns how many.

    Raises:
        StorageError: the database cannot be used now.
    """

    async def forget(session: AsyncSession) -> int:
        gone = (await session.scalars(due.limit(PURGE_ROWS))).all()
        if gone:
            await session.execute(delete(table).where(table.id.in_(gone)))
        return len(gone)

    total = 0
    while True:
        gone = await database.write(forget)
        total += gone
        if gone < PURGE_ROWS:
            return total

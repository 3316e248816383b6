"""Gating's decisions: written in batches, found by request id, forgotten after a time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import orjson
from sqlalchemy import JSON, Table, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.callers import Callers
from app.storage.database import Database
from app.storage.engine import SQLITE
from app.storage.models import Decision
from app.storage.purging import purge_rows
from app.storage.records import DecisionRecord, FoundDecision

AT_ONCE = 64
"""Rows put together before the event loop may turn: about 0.4 ms."""
MOST_ROWS = 512
"""Of one statement; a power of two."""
TABLE = cast(Table, Decision.__table__)
COLUMNS = DecisionRecord._fields
CALLER = COLUMNS.index("caller")
JSON_COLUMNS = tuple(place for place, name in enumerate(COLUMNS) if isinstance(TABLE.c[name].type, JSON))


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
        hashes = {caller: await self._callers.hash_of(caller) for caller in {r.caller for r in records}}
        values: list[Any] = []
        for index, record in enumerate(records):
            values += _values(record, hashes[record.caller])
            if index % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        # In few statements, past SQLAlchemy's own binding: a row at a time its Python, and the driver's
        # thread that asks for the interpreter's lock after each row, cost a request 0.1 ms under full load.
        mark, width = "?" if self._database.dialect == SQLITE else "%s", len(COLUMNS)

        async def write(session: AsyncSession) -> None:
            connection = await session.connection()
            done = 0
            for rows in _parts(len(records)):
                part = tuple(values[done * width : (done + rows) * width])
                await connection.exec_driver_sql(_insert(rows, mark), part)
                done += rows

        await self._database.write(write)

    async def find(
        self, request_id: str, caller_hash: str, *, only: Collection[str] | None = None
    ) -> FoundDecision | None:
        """The newest decision of that request id: the caller's own, else anybody's.

        Args:
            request_id: of the request.
            caller_hash: who asks.
            only: the callers, as hashes, whose decisions are looked at; None for everybody's.

        Raises:
            StorageError: the database cannot be used now.
        """
        own_first = (Decision.caller == caller_hash).desc()
        query = select(Decision.id, Decision.task).where(Decision.request_id == request_id)
        if only is not None:
            query = query.where(Decision.caller.in_(only))
        first = query.order_by(own_first, Decision.id.desc()).limit(1)

        async def read(session: AsyncSession) -> FoundDecision | None:
            row = (await session.execute(first)).first()
            return FoundDecision(row.id, row.task) if row is not None else None

        return await self._database.read(read)

    async def purge(self, before: float) -> int:
        """Forgets what is older than a Unix time; returns how many. See `FeedbackRows.purge`.

        Raises:
            StorageError: the database cannot be used now.
        """
        old = select(Decision.id).where(Decision.created_at < before).order_by(Decision.created_at)
        return await purge_rows(self._database, Decision, old)


def _parts(rows: int) -> Iterator[int]:
    """Powers of two that sum up to so many rows.

    A connection keeps the last 128 statements that it has compiled, and one for each number of rows would
    take megabytes: so there are only a few.
    """
    while rows:
        part = min(MOST_ROWS, 1 << (rows.bit_length() - 1))
        yield part
        rows -= part


@lru_cache(maxsize=2 * MOST_ROWS.bit_length())
def _insert(rows: int, mark: str) -> str:
    """The statement that takes so many rows; `mark` stands for a value, as the driver wants it."""
    row = f"({', '.join([mark] * len(COLUMNS))})"
    return f"INSERT INTO {TABLE.name} ({', '.join(COLUMNS)}) VALUES {', '.join([row] * rows)}"  # noqa: S608


def _values(record: DecisionRecord, caller_hash: str) -> list[Any]:
    row: list[Any] = list(record)
    row[CALLER] = caller_hash
    for place in JSON_COLUMNS:
        row[place] = orjson.dumps(row[place]).decode()
    return row

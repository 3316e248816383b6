"""Transactions in tasks of their own; see `test_cut_off` for what that is for, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.storage.engine import async_engine, read_url
from app.storage.transaction import OverdueError, Transaction

ENDLESS = text("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    found = async_engine(read_url(f"sqlite:///{tmp_path}/x.sqlite3"))
    yield found
    await found.dispose()


async def test_it_gives_what_its_work_gives_and_raises_what_it_raises(engine: AsyncEngine) -> None:
    async def two(session: AsyncSession) -> int | None:
        return await session.scalar(text("SELECT 2"))

    async def wrong(_session: AsyncSession) -> None:
        raise TimeoutError

    assert await Transaction(engine, two).result(9) == 2
    with pytest.raises(TimeoutError):
        await Transaction(engine, wrong).result(9)


async def test_who_waits_may_go_and_it_goes_on(engine: AsyncEngine) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def waiting(session: AsyncSession) -> int | None:
        begun.set()
        await gate.wait()
        return await session.scalar(text("SELECT 1"))

    transaction = Transaction(engine, waiting)
    caller = asyncio.create_task(transaction.result(9))
    await begun.wait()
    caller.cancel()
    await asyncio.wait({caller})
    gate.set()
    assert await transaction.result(9) == 1


@pytest.mark.parametrize("before", [True, False])
async def test_what_is_broken_off_between_two_statements_is_not_written(
    engine: AsyncEngine, before: bool
) -> None:
    async def inserting(session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO t VALUES (1)"))
        begun.set()
        await gate.wait()
        await session.execute(text("INSERT INTO t VALUES (2)"))

    begun, gate = asyncio.Event(), asyncio.Event()
    await Transaction(
        engine, lambda session: session.execute(text("CREATE TABLE t (x)")), commits=True
    ).result(9)
    transaction = Transaction(engine, inserting, commits=True)
    if not before:  # before anything was done on the connection
        await begun.wait()
    end = asyncio.create_task(transaction.break_off())
    await asyncio.sleep(0)
    gate.set()
    await end
    assert not await Transaction(
        engine, lambda session: session.scalar(text("SELECT count(*) FROM t"))
    ).result(9)


async def test_a_statement_that_hangs_is_broken_off(engine: AsyncEngine) -> None:
    transaction = Transaction(engine, lambda session: session.scalar(ENDLESS))
    with pytest.raises(OverdueError):
        await transaction.result(0.05)
    async with asyncio.timeout(10):
        await transaction.break_off()
    with pytest.raises(OperationalError, match="interrupted"):
        await transaction.result(0)

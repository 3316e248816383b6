"""One transaction as a task of its own: it comes to its end, whoever waits for it may go at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.storage.engine import SQLITE

T = TypeVar("T")
Work = Callable[[AsyncSession], Awaitable[T]]
"""What is done in a transaction; it commits nothing itself."""

INTERRUPT_EVERY_S = 0.2


class OverdueError(Exception):
    """A transaction takes too long; it goes on until it is broken off."""


class Transaction(Generic[T]):
    """Begins at once; is rolled back at its end, unless it `commits`.

    A cancellation must never reach it: one that cuts off a driver's call leaves the connection busy, and on
    SQLite the lock with it, so that nobody writes until the garbage collector finds the connection.
    """

    def __init__(self, engine: AsyncEngine, work: Work[T], *, commits: bool = False) -> None:
        self._engine = engine
        self._driver: Any = None
        """the driver's connection, while the work is done on it"""
        self._broken_off = False
        self._steps = asyncio.create_task(self._run(work, commits))

    async def result(self, timeout_s: float) -> T:
        """What the work gave.

        Raises:
            OverdueError: it is not at its end.
            Exception: what the work, or the database, raised.
        """
        await asyncio.wait({self._steps}, timeout=timeout_s)
        if not self._steps.done():
            raise OverdueError(f"a transaction was not at its end after {timeout_s:g} seconds")
        return self._steps.result()

    async def break_off(self) -> None:
        """Ends it, rolled back unless its commit has begun; returns at its end.

        The pool must not lend the connection again. Nothing can end a call that hangs in the file system;
        it is waited for.
        """
        self._broken_off = True
        if self._engine.dialect.name != SQLITE:
            self._steps.cancel()  # once: psycopg then cancels the statement at the server, or hangs up
        while not self._steps.done():
            if self._engine.dialect.name == SQLITE and self._driver is not None:
                await self._driver.interrupt()  # the statement under way, if there is one
            await asyncio.wait({self._steps}, timeout=INTERRUPT_EVERY_S)
        if not self._steps.cancelled():
            self._steps.exception()  # looked at: it is no news

    async def _run(self, work: Work[T], commits: bool) -> T:
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            connection = await session.connection()
            self._driver = (await connection.get_raw_connection()).driver_connection
            try:
                self._check()
                found = await work(session)
                self._check()  # between two statements there is nothing to interrupt
                if commits:
                    await session.commit()
                return found
            finally:
                self._driver = None

    def _check(self) -> None:
        if self._broken_off:
            raise OverdueError("a transaction was broken off")

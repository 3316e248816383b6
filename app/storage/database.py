"""Transactions on the database, and the one border where its errors become ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from app.storage.engine import BEGIN, SQLITE, async_engine, read_url
from app.storage.migrate import migrate
from app.storage.migrations import HEAD
from app.storage.models import Base
from app.storage.transaction import OverdueError, T, Transaction, Work
from moe_router.errors import StorageError

logger = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_S = 15.0
"""A database that hangs must not hold requests for longer."""
CLOSE_TIMEOUT_S = 2.0
"""For an attempt that hangs, at the end: the process has little time left by then."""
UNDEFINED_TABLE = "42P01"
GENERATION = "mole_generation"
"""Of a connection: how often the database had been lost before it was made."""


class Database:
    """One pool of connections; brings the schema up to date before the first transaction.

    A database that is gone makes transactions raise `StorageError`; the next one tries anew, so that
    the service recovers without a restart. Each runs in a task of its own: the cancellation of whoever
    waits for it does not cut it off.
    """

    def __init__(self, url: str) -> None:
        """Checks the URL; connects to nothing yet.

        Raises:
            ConfigError: the URL is unusable.
        """
        self.url = read_url(url)
        self._engine = async_engine(self.url)
        self._writing = self._engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
        self._migrated = False
        self._attempt: asyncio.Task[None] | None = None
        """to bring the schema up to date, the last one"""
        self._under_way: set[Transaction[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        """transactions, and the ends of some, whether anybody waits for them or not"""
        self._generation = 0
        event.listen(self._engine.sync_engine, "connect", self._on_connect)
        event.listen(self._engine.sync_engine, "checkout", self._on_checkout)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.drivername

    @property
    def generation(self) -> int:
        """Another number after every loss: what was read before may be of a database that is gone."""
        return self._generation

    @property
    def available(self) -> bool:
        """Whether the last use succeeded."""
        return self._migrated

    def insert(self, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that can say what to do on a conflict."""
        return sqlite.insert(table) if self.dialect == SQLITE else postgresql.insert(table)

    async def read(self, work: Work[T]) -> T:
        """What is read in one transaction.

        It runs to its end in a task of its own, also where the caller goes meanwhile, or is cancelled.

        Raises:
            StorageError: the database cannot be used now.
        """
        return await self._whole(self._engine, work, commits=False)

    async def write(self, work: Work[T]) -> T:
        """Commits, durably, what the work writes, and rolls back where it raises.

        Where the caller goes meanwhile, or is cancelled, all of it is written all the same, or nothing.

        Raises:
            StorageError: the database cannot be used now; nothing was written, unless it failed in the very
                commit.
            sqlalchemy.exc.IntegrityError: a constraint is violated.
        """
        return await self._whole(self._writing, work, commits=True)

    async def ready(self) -> None:
        """Brings the schema up to date, once; who comes meanwhile shares the attempt, and its failure.

        Raises:
            StorageError: the database cannot be used now.
        """
        if self._migrated:
            return
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.create_task(self._bring_up_to_date())
            self._attempt.add_done_callback(_seen)
        await asyncio.shield(self._attempt)

    def reconnect(self) -> None:
        """Transactions that begin from now on use new connections: the file may have been replaced.

        Nobody else is disturbed: disposing of the pool would strand the connections that are in use.
        """
        self._generation += 1
        self._migrated = False

    async def aclose(self) -> None:
        """Closes the connections; waits a little for what is under way, though nobody may wait for it."""
        if self._attempt is not None:
            await asyncio.wait({self._attempt}, timeout=CLOSE_TIMEOUT_S)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        if self._under_way:
            ends = [self._keep(transaction.break_off()) for transaction in self._under_way]
            await asyncio.wait(ends, timeout=CLOSE_TIMEOUT_S)
        await self._engine.dispose()

    async def _whole(self, engine: AsyncEngine, work: Work[T], *, commits: bool) -> T:
        if not self._migrated:
            await self._until_ready()
        return await asyncio.shield(self._keep(self._transaction(engine, work, commits)))

    async def _transaction(self, engine: AsyncEngine, work: Work[T], commits: bool) -> T:
        try:
            return await self._in_time(Transaction(engine, work, commits=commits))
        except PoolTimeoutError as error:  # too much is asked of it at once; nothing says that it is lost
            raise self._failed(error) from error
        except DBAPIError as error:
            if _is_ours(error):
                raise
            raise self._lost(error) from error

    async def _in_time(self, transaction: Transaction[T]) -> T:
        """Runs in a task that nobody cancels."""
        self._under_way.add(transaction)
        try:
            return await transaction.result(TRANSACTION_TIMEOUT_S)
        except OverdueError as error:
            lost = self._lost(error)  # first: the pool must not lend its connection again
            self._keep(transaction.break_off())
            raise lost from error
        finally:
            self._under_way.discard(transaction)

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that goes on where nobody waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_seen)
        return task

    async def _until_ready(self) -> None:
        """Waits for the schema no longer than for a transaction; a long migration is no loss."""
        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S):
                await self.ready()
        except TimeoutError as error:
            raise self._failed(error) from error

    def _lost(self, error: Exception) -> StorageError:
        """Looks at everything anew next time: the file may have been replaced, the server restarted."""
        self.reconnect()
        return self._failed(error)

    def _on_connect(self, _connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        entry.info[GENERATION] = self._generation

    def _on_checkout(
        self, _connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        if entry.info[GENERATION] != self._generation:
            raise DisconnectionError  # the pool closes this one and connects anew

    def _failed(self, error: Exception) -> StorageError:
        # The driver's words alone: SQLAlchemy's message also holds the statement's parameters.
        said = error.orig if isinstance(error, DBAPIError) else error
        logger.warning("the database failed: %s: %s", type(said).__name__, str(said).strip())
        return StorageError("The coordinator's database cannot be used now.")

    async def _bring_up_to_date(self) -> None:
        try:
            if not await self._is_newest():
                await asyncio.to_thread(migrate, self.url)
        except StorageError:
            raise
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise self._failed(error) from error
        except Exception as error:  # Alembic's own, such as a schema that is newer than this code
            logger.error("the database's schema cannot be brought up to date: %s", error)
            raise self._failed(error) from error
        self._migrated = True

    async def _is_newest(self) -> bool:
        """Whether nothing is to do, told without loading Alembic."""
        query = text("SELECT version_num FROM alembic_version")
        try:
            found = await self._in_time(Transaction(self._engine, lambda session: session.scalar(query)))
        except DBAPIError:  # blank, or out of reach; migrating will tell
            return False
        return bool(found == HEAD)


def _seen(attempt: asyncio.Task[Any]) -> None:
    """Its failure is no news, also where nobody waits for it any more."""
    if not attempt.cancelled():
        attempt.exception()


def _is_ours(error: Exception) -> bool:
    """Whether the statement is at fault, not the database."""
    if isinstance(error, ProgrammingError):  # a table that is missing: another database took its place
        return getattr(error.orig, "sqlstate", None) != UNDEFINED_TABLE
    return isinstance(error, IntegrityError | DataError)

"""Writes decisions in the background: an answer never waits for it, nor fails with it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Literal

from app.storage.records import DecisionRecord
from moe_router.errors import StorageError

logger = logging.getLogger(__name__)

Outcome = Literal["written", "full", "unwritable", "closed"]
BATCH = 1024
"""Rows in one transaction. They keep their places in the queue until they are written, so these are well
below its default size."""
LINGER_S = 0.5
"""How long the first record of a batch waits for others: a transaction takes the event loop some milliseconds
of hand-overs to the driver's thread, however many rows it has."""
WRITTEN_WITHIN_S = 2 * LINGER_S
"""A record is in the database by then, unless that is slow."""
RETRY_S = 1.0
CLOSE_TIMEOUT_S = 5.0


class Recorder:
    """A bounded queue before the database; what does not fit is dropped and counted."""

    def __init__(
        self,
        write: Callable[[Sequence[DecisionRecord]], Awaitable[None]],
        *,
        size: int,
        count: Callable[[Outcome, int], None],
        linger_s: float = LINGER_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._write = write
        self._size = size
        self._count = count
        self._linger_s = linger_s
        self._retry_s = retry_s
        self._waiting: deque[DecisionRecord] = deque()
        self._filled = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._flushes: set[asyncio.Task[None]] = set()
        self._refused: list[Exception] = []
        """why records could not be written, of the flush under way"""

    def start(self) -> None:
        """Begins to write."""
        self._task = asyncio.create_task(self._run())

    def record(self, record: DecisionRecord) -> None:
        """Takes a record; returns at once."""
        if len(self._waiting) >= self._size:
            self._count("full", 1)
            return
        self._waiting.append(record)
        self._filled.set()

    async def flush(self) -> None:
        """Writes what has been recorded until now.

        Raises:
            StorageError: the database cannot be used now; the records wait on.
        """
        # A task of its own: a caller that goes must not cut a transaction off whose end is then unknown.
        task = asyncio.create_task(self._drain())
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)
        await asyncio.shield(task)

    async def aclose(self) -> None:
        """Writes what is left, if that is possible soon."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._drain()
        except (StorageError, TimeoutError):
            self._count("closed", len(self._waiting))
            logger.warning("%d decisions were not recorded", len(self._waiting))

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            await asyncio.sleep(self._linger_s)
            try:
                await self.flush()
            except StorageError:  # logged where it arose
                await asyncio.sleep(self._retry_s)

    async def _drain(self) -> None:
        async with self._writing:
            try:
                # What comes meanwhile waits for its own batch: else every row or two is a transaction.
                left = len(self._waiting)
                while left > 0:
                    batch = list(islice(self._waiting, min(left, BATCH)))
                    left -= len(batch)
                    await self._put(batch)
                if not self._waiting:
                    self._filled.clear()
            finally:
                self._tell_refused()

    async def _put(self, batch: Sequence[DecisionRecord]) -> None:
        """Writes the first of those that wait, in halves where one of them may be at fault.

        A row that no database takes would block all others for ever, or take them along. What is refused
        whatever the row, as without the permission to write, is dropped at once.
        """
        try:
            await self._write(batch)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001  told at the end of the flush
            if len(batch) == 1 or not _of_a_row(error):
                self._refused += [error] * len(batch)
                return self._forget(len(batch), "unwritable")
            middle = len(batch) // 2
            await self._put(batch[:middle])
            await self._put(batch[middle:])
        else:
            self._forget(len(batch), "written")

    def _forget(self, number: int, outcome: Outcome) -> None:
        for _ in range(number):
            self._waiting.popleft()
        self._count(outcome, number)

    def _tell_refused(self) -> None:
        """Once for each flush: a fault of every row would fill the log."""
        if self._refused:
            first = self._refused[0]
            logger.error("%d decisions cannot be recorded; the first:", len(self._refused), exc_info=first)
            self._refused.clear()


def _of_a_row(error: Exception) -> bool:
    """Whether the others of a batch may be written without one of them."""
    # Not above: the application is imported without the database's library, which is loaded by now.
    from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, StatementError

    # What the server says is of the statement; the driver's own is of a value.
    if isinstance(error, ProgrammingError):
        return getattr(error.orig, "sqlstate", None) is None
    if isinstance(error, DBAPIError):
        return isinstance(error, IntegrityError | DataError)
    return isinstance(error, StatementError | ValueError | OverflowError)  # a value that cannot be bound

"""The coordinator's storage as one: tables, the writer of decisions, and the clearing of old rows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from app.storage.api_keys import ApiKeys
from app.storage.callers import Callers
from app.storage.database import Database
from app.storage.decisions import Decisions
from app.storage.feedback import FeedbackRows
from app.storage.jobs import ABANDONED_AFTER_S, Jobs
from app.storage.judged import JudgedRows
from app.storage.recorder import CLOSE_TIMEOUT_S, Outcome, Recorder
from app.storage.records import FoundDecision
from app.storage.replay import ReplayRows
from app.storage.router_versions import RouterVersions
from moe_router.errors import StorageError

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
PURGE_EVERY_S = 3600.0


class Storage:
    """One for each process; usable as soon as it is made, whether the database is there or not."""

    def __init__(
        self,
        url: str,
        *,
        retention_days: float,
        queue_size: int,
        count: Callable[[Outcome, int], None],
        job_retention_days: float = 7.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Connects to nothing yet.

        Raises:
            ConfigError: the URL is unusable.
        """
        self.database = Database(url)
        self.callers = Callers(self.database)
        self.decisions = Decisions(self.database, self.callers)
        self.feedback = FeedbackRows(self.database)
        self.jobs = Jobs(self.database)
        self.api_keys = ApiKeys(self.database)
        self.judged = JudgedRows(self.database)
        self.replay = ReplayRows(self.database)
        self.router_versions = RouterVersions(self.database)
        self.recorder = Recorder(self.decisions.add, size=queue_size, count=count)
        self.clock = clock
        self._retention_s = retention_days * DAY_S
        self._job_retention_s = job_retention_days * DAY_S
        self._tasks: list[asyncio.Task[None]] = []
        self._purging: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins what runs in the background, the migration first; returns at once."""
        self.recorder.start()
        self._tasks.append(asyncio.create_task(self._purge_regularly()))

    async def aclose(self) -> None:
        """Writes what waits, and closes the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self._end_purge(), self.recorder.aclose())
        await self.database.aclose()

    async def find_decision(
        self, request_id: str, caller_hash: str, *, only: Collection[str] | None = None
    ) -> FoundDecision | None:
        """The decision of a request that was answered, also of one answered just now by this process.

        That of another process may be missing for `WRITTEN_WITHIN_S`. See `Decisions.find`.

        Raises:
            StorageError: the database cannot be used now.
        """
        found = await self.decisions.find(request_id, caller_hash, only=only)
        if found is None:
            await self.recorder.flush()
            found = await self.decisions.find(request_id, caller_hash, only=only)
        return found

    async def purge(self) -> int:
        """Forgets decisions past their time, and what was said about them; returns how many decisions.

        Raises:
            StorageError: the database cannot be used now.
        """
        before = self.clock() - self._retention_s
        gone = await self.decisions.purge(before)
        await self.feedback.purge(before)
        return gone

    async def purge_jobs(self) -> int:
        """Forgets jobs past their time and uploads that broke off; returns how many.

        Raises:
            StorageError: the database cannot be used now.
        """
        now = self.clock()
        return await self.jobs.purge(
            finished_before=now - self._job_retention_s, abandoned_before=now - ABANDONED_AFTER_S
        )

    async def _purge_regularly(self) -> None:
        while True:
            # A task of its own: an end waits a little for what it has begun, see `_end_purge`.
            self._purging = asyncio.create_task(self._purge_all())
            await asyncio.shield(self._purging)
            await asyncio.sleep(PURGE_EVERY_S)

    async def _end_purge(self) -> None:
        if self._purging is not None:
            await asyncio.wait({self._purging}, timeout=CLOSE_TIMEOUT_S)
            self._purging.cancel()

    async def _purge_all(self) -> None:
        try:
            gone = await self.purge()
            if gone:
                logger.info("%d decisions are past their time and were forgotten", gone)
            await self.purge_jobs()
        except StorageError:  # logged where it arose; the next round tries again
            pass
        except Exception:
            logger.exception("what is past its time cannot be forgotten")

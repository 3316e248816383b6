"""The router's feedback, summed up at most every two seconds, however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.services.router_report import READ_ROWS, RouterFeedbackAnswer, report

if TYPE_CHECKING:
    from app.storage.judged import JudgedRows

FRESH_S = 2.0
"""Summing up takes a tenth of a second of a core: it must not be anybody's to ask for at will."""


class FeedbackReports:
    """One for each process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._made: tuple[float, RouterFeedbackAnswer] | None = None

    async def answer(self, judged: JudgedRows) -> RouterFeedbackAnswer:
        """The summary, no older than FRESH_S.

        Raises:
            StorageError: the database cannot be used now.
        """
        async with self._lock:
            if self._made is None or self._clock() - self._made[0] >= FRESH_S:
                rows = await judged.newest(READ_ROWS)
                made = await asyncio.to_thread(report, rows, total=await judged.count())
                self._made = self._clock(), made
            return self._made[1]

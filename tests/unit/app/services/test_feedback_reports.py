from __future__ import annotations

import asyncio
from typing import cast

import pytest

from app.services.feedback_reports import FRESH_S, FeedbackReports
from app.storage.judged import JudgedRow, JudgedRows
from moe_router.errors import StorageError


class Rows:
    def __init__(self) -> None:
        self.reads = 0
        self.gone = False

    async def newest(self, _limit: int) -> list[JudgedRow]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.gone:
            raise StorageError("gone")
        return []

    async def count(self) -> int:
        return self.reads


async def test_many_who_ask_at_once_are_answered_by_one_reading() -> None:
    now = 0.0
    rows = Rows()
    reports = FeedbackReports(lambda: now)
    judged = cast(JudgedRows, rows)
    answers = await asyncio.gather(*(reports.answer(judged) for _ in range(9)))
    assert [answer.rows for answer in answers] == [1] * 9
    now = FRESH_S
    assert (await reports.answer(judged)).rows == 2


async def test_what_failed_is_not_kept() -> None:
    rows = Rows()
    rows.gone = True
    reports = FeedbackReports(lambda: 0.0)
    for _ in range(2):
        with pytest.raises(StorageError):
            await reports.answer(cast(JudgedRows, rows))
    rows.gone = False
    assert (await reports.answer(cast(JudgedRows, rows))).rows == 3

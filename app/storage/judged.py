"""Judged decisions without their vectors: what was answered, what would have been right, what it cost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.models import Decision, Feedback

AT_ONCE = 100
"""Rows read before the event loop may turn: about a millisecond of JSON."""


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One caller's word about one request; the members mean what the columns of the tables do."""

    task: str | None
    task_fixed: bool
    task_probabilities: dict[str, float]
    observations: list[dict[str, Any]]
    router_version: int | None
    abstained: str | None
    correct_task: str | None
    correct_label: str | None
    score: float | None


class JudgedRows:
    """The tables `feedback` and `decisions`, joined; a decision that has expired takes its row along."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self) -> int:
        """How many there are.

        Raises:
            StorageError: the database cannot be used now.
        """
        query = select(func.count()).select_from(Feedback).where(Feedback.decision_id.is_not(None))
        return await self._database.read(lambda session: session.scalar(query)) or 0

    async def newest(self, limit: int) -> list[JudgedRow]:
        """The newest, newest feedback first.

        Raises:
            StorageError: the database cannot be used now.
        """
        query = (
            select(
                Decision.task,
                Decision.task_fixed,
                Decision.task_probabilities,
                Decision.observations,
                Decision.router_version,
                Decision.abstained,
                Feedback.correct_task,
                Feedback.correct_label,
                Feedback.score,
            )
            .join(Decision, Decision.id == Feedback.decision_id)
            .order_by(Feedback.updated_at.desc(), Feedback.id.desc())
            .limit(limit)
        )

        async def read(session: AsyncSession) -> list[JudgedRow]:
            found: list[JudgedRow] = []
            for part in (await session.execute(query)).partitions(AT_ONCE):
                found += [JudgedRow(*row) for row in part]
                await asyncio.sleep(0)
            return found

        return await self._database.read(read)

"""Reads judged decisions into the arrays that the learner takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.models import Decision, Feedback
from moe_router.gating.task_router import Via
from moe_router.gating.weights import Floats
from moe_router.training.feedback.replay import Replay, Step


class ReplayRows:
    """The tables `feedback` and `decisions`, joined."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replay(
        self,
        *,
        encoder: str,
        hidden: int,
        limit: int,
        per_caller: int,
        since: float = 0.0,
    ) -> Replay:
        """The newest judged decisions, newest feedback first.

        Args:
            encoder: identity of the encoder in use; vectors of another one mean something else, and
                their rows are left out.
            hidden: length of its vectors.
            limit: most rows.
            per_caller: most rows of one caller, so that one who sends thousands does not teach alone.
            since: Unix time that the feedback must be newer than.

        Raises:
            StorageError: the database cannot be used now.
        """
        newest = (Feedback.updated_at.desc(), Feedback.id.desc())
        ranked = (
            select(
                Feedback.id,
                func.row_number().over(partition_by=Feedback.caller, order_by=newest).label("rank"),
            )
            .join(Decision, Decision.id == Feedback.decision_id)
            .where(Feedback.updated_at > since, (Decision.encoder == encoder) | Decision.encoder.is_(None))
            .subquery()
        )
        query = (
            select(Feedback, Decision)
            .join(Decision, Decision.id == Feedback.decision_id)
            .join(ranked, ranked.c.id == Feedback.id)
            .where(ranked.c.rank <= per_caller)
            .order_by(*newest)
            .limit(limit)
        )

        async def read(session: AsyncSession) -> list[tuple[Feedback, Decision]]:
            return [(feedback, decision) for feedback, decision in await session.execute(query)]

        return _arrays(await self._database.read(read), hidden)


def _arrays(rows: Sequence[tuple[Feedback, Decision]], hidden: int) -> Replay:
    said, made = [f for f, _ in rows], [d for _, d in rows]
    tasks, task_probability = _matrix([d.task_probabilities for d in made])
    domains, domain_probability = _matrix([d.domain_probabilities for d in made])
    return Replay(
        request_id=tuple(f.request_id for f in said),
        caller=tuple(f.caller for f in said),
        decided_at=np.array([d.created_at for d in made], np.float64),
        judged_at=np.array([f.updated_at for f in said], np.float64),
        description=_vectors([d.description_vector for d in made], hidden),
        text=_vectors([d.text_vector for d in made], hidden),
        language=tuple(d.language for d in made),
        language_probability=_column([d.language_probability for d in made]),
        domains=domains,
        domain_probability=domain_probability,
        tasks=tasks,
        task_probability=task_probability,
        none_probability=_column([d.none_probability for d in made]),
        task=tuple(d.task for d in made),
        task_fixed=np.array([d.task_fixed for d in made], np.bool_),
        via=tuple(cast(Via, d.via or "auto") for d in made),
        action=tuple(d.action for d in made),
        propensity=_column([d.propensity for d in made]),
        steps=tuple(tuple(Step(**step) for step in d.observations) for d in made),
        fault=tuple(d.fault for d in made),
        router_version=tuple(d.router_version for d in made),
        correct_task=tuple(f.correct_task for f in said),
        correct_label=tuple(f.correct_label for f in said),
        score=_column([f.score for f in said]),
    )


def _column(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float32)


def _vectors(stored: Sequence[bytes | None], hidden: int) -> Floats:
    found = np.zeros((len(stored), hidden), np.float32)
    for row, data in enumerate(stored):
        if data is not None:
            found[row] = np.frombuffer(data, "<f2")
    return found


def _matrix(rows: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], Floats]:
    """Columns in the order of their first occurrence."""
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return names, np.array([[row.get(n, 0.0) for n in names] for row in rows], np.float32).reshape(
        len(rows), len(names)
    )

"""Counters since the start, for people; Prometheus has its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.services.telemetry.traffic import Traffic
from moe_router.contracts import Answer
from moe_router.members import AnswerMembers

MOST_LANGUAGES = 200
OTHER = "other"


class StatsAnswer(Answer):
    """What `/stats` tells."""

    started_at: str
    uptime_seconds: float
    classified: int
    abstained: dict[str, int]
    failed: dict[str, int]
    by_task: dict[str, int]
    by_language: dict[str, int]
    encoder_passes: int


@dataclass(slots=True)
class Stats:
    """Changed on the event loop only."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    classified: int = 0
    encoder_passes: int = 0
    abstained: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    by_task: Counter[str] = field(default_factory=Counter)
    by_language: Counter[str] = field(default_factory=Counter)
    traffic: Traffic = field(default_factory=Traffic)

    def answered(self, answer: AnswerMembers) -> None:
        """Notes an answer."""
        self.traffic.answered(answer)
        language, task, abstained = answer["language"], answer["task"], answer["abstained"]
        known = language in self.by_language or len(self.by_language) < MOST_LANGUAGES
        self.by_language[language if known else OTHER] += 1
        if abstained is not None:
            self.abstained[abstained.reason] += 1
            return
        self.classified += 1
        if task is not None:
            self.by_task[task] += 1

    def answer(self) -> StatsAnswer:
        """The counters as they are."""
        return StatsAnswer(
            started_at=self.started.isoformat(timespec="seconds"),
            uptime_seconds=round((datetime.now(UTC) - self.started).total_seconds(), 3),
            classified=self.classified,
            abstained=dict(self.abstained),
            failed=dict(self.failed),
            by_task=dict(self.by_task),
            by_language=dict(self.by_language),
            encoder_passes=self.encoder_passes,
        )

"""The last hour in buckets of ten seconds, for people; one process alone, and forgotten with it."""

from __future__ import annotations

import time
import uuid
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import Field

from app.services.text_routes import TEXT_ROUTES
from moe_router.contracts import Answer
from moe_router.members import AnswerMembers

BUCKET_S = 10
BUCKETS = 360
MOST_NAMES = 40
"""Languages, and tasks, told apart in one bucket."""
OTHER = "other"
BOUNDS_MS = tuple(round(1.25**power, 3) for power in range(-3, 53))
"""Upper bounds of the latency bins: a quantile is told up to 25 % too high, up to two minutes."""


class TrafficBucket(Answer):
    """Ten seconds."""

    at: str = Field(description="When it began.")
    requests: int = Field(description="Requests to classify or to route, however they were answered.")
    refused: int = Field(description="Of these, with a 4xx status.")
    failed: int = Field(description="Of these, with a 5xx status.")
    p50_ms: float | None = Field(description="Of these requests' durations; null where there were none.")
    p95_ms: float | None
    answers: int = Field(description="Texts answered: of requests, batches and jobs; by the expert or not.")
    abstained: int = Field(description="Of the answers.")
    languages: dict[str, int]
    tasks: dict[str, int]


class TrafficAnswer(Answer):
    """The last hour of this process, oldest first; buckets without traffic are left out."""

    process: str = Field(description="Another value: another process answered, which counts for itself.")
    started_at: str
    bucket_seconds: int
    until: str = Field(description="The end of the newest bucket.")
    buckets: list[TrafficBucket]


@dataclass(slots=True)
class _Bucket:
    number: int
    """Unix time in units of BUCKET_S"""
    requests: int = 0
    refused: int = 0
    failed: int = 0
    answers: int = 0
    abstained: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)

    def quantile(self, share: float) -> float | None:
        """The upper bound of the bin in which the share of the requests is reached, in milliseconds."""
        if not self.requests:
            return None
        seen = 0
        for index in sorted(self.latency):
            seen += self.latency[index]
            if seen >= share * self.requests:
                break
        return BOUNDS_MS[index]

    def told(self) -> TrafficBucket:
        return TrafficBucket(
            at=_time(self.number),
            requests=self.requests,
            refused=self.refused,
            failed=self.failed,
            p50_ms=self.quantile(0.5),
            p95_ms=self.quantile(0.95),
            answers=self.answers,
            abstained=self.abstained,
            languages=dict(self.languages),
            tasks=dict(self.tasks),
        )


class Traffic:
    """A ring of buckets; changed on the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._started = clock()
        self._process = uuid.uuid4().hex[:8]
        self._buckets: deque[_Bucket] = deque(maxlen=BUCKETS)
        self._newest = _Bucket(0)
        self._ends = 0.0
        """When `_newest` does; 0 before there is one."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """Notes an answered request, where its route (the path's template) classifies."""
        if route not in TEXT_ROUTES:
            return
        bucket = self._now()
        bucket.requests += 1
        bucket.refused += 400 <= status < 500
        bucket.failed += status >= 500
        bucket.latency[min(bisect_left(BOUNDS_MS, seconds * 1000), len(BOUNDS_MS) - 1)] += 1

    def answered(self, answer: AnswerMembers) -> None:
        """Notes a text's answer, whichever way it came."""
        bucket = self._now()
        bucket.answers += 1
        _note(bucket.languages, answer["language"])
        if answer["abstained"] is not None:
            bucket.abstained += 1
        elif answer["task"] is not None:
            _note(bucket.tasks, answer["task"])

    def answer(self) -> TrafficAnswer:
        """What `/stats/traffic` tells."""
        number = int(self._clock() // BUCKET_S)
        return TrafficAnswer(
            process=self._process,
            started_at=datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            bucket_seconds=BUCKET_S,
            until=_time(number + 1),
            buckets=[bucket.told() for bucket in self._buckets if bucket.number > number - BUCKETS],
        )

    def _now(self) -> _Bucket:
        now = self._clock()
        if now >= self._ends:  # a clock that was set back adds to the newest bucket
            self._newest = _Bucket(int(now // BUCKET_S))
            self._buckets.append(self._newest)
            self._ends = (self._newest.number + 1) * BUCKET_S
        return self._newest


def _note(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < MOST_NAMES else OTHER] += 1


def _time(number: int) -> str:
    return datetime.fromtimestamp(number * BUCKET_S, UTC).isoformat(timespec="seconds")

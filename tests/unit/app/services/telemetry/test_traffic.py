from __future__ import annotations

import pytest

from app.services.telemetry.traffic import BUCKETS, MOST_NAMES, OTHER, Traffic
from moe_router.contracts import Abstention
from moe_router.members import AnswerMembers

CLASSIFY = "/api/v1/classify"


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def traffic(clock: Clock) -> Traffic:
    return Traffic(clock)


def said(language: str = "de", task: str | None = "a/b", abstained: bool = False) -> AnswerMembers:
    why = Abstention(reason="low_confidence", detail="Unsure.") if abstained else None
    return {
        "request_id": "r", "language": language, "domain": None, "task": task, "result": None,
        "confidence": 0.5, "probabilities": None, "domain_probabilities": None, "entities": None,
        "abstained": why, "raw_response": None, "routing_path": [], "worker_id": None, "model_key": None,
        "processing_time_ms": 1.0,
        "timings_ms": {"language": 0, "encode": 0, "domain": 0, "task": 0, "worker": 0, "total": 1},
    }  # fmt: skip


def test_requests_by_how_they_were_answered(traffic: Traffic) -> None:
    for status in (200, 200, 400, 429, 499, 503):
        traffic.request(CLASSIFY, status, 0.01)
    (bucket,) = traffic.answer().buckets
    assert (bucket.requests, bucket.refused, bucket.failed) == (6, 3, 1)


@pytest.mark.parametrize(
    ("route", "counts"),
    [
        (CLASSIFY, True),
        ("/api/v1/classify/batch", True),
        ("/api/v1/route", True),
        ("/v1/chat/completions", True),
        ("/v1/models", False),
        ("/v1/models/{model:path}", False),
        ("/api/v1/workers", False),
        ("/api/v1/jobs", False),
        ("/", False),
        ("unmatched", False),
    ],
)
def test_what_counts(traffic: Traffic, route: str, counts: bool) -> None:
    traffic.request(route, 200, 0.01)
    assert len(traffic.answer().buckets) == counts


def test_quantiles_are_within_their_bins(traffic: Traffic) -> None:
    for _ in range(94):
        traffic.request(CLASSIFY, 200, 0.020)
    for _ in range(6):
        traffic.request(CLASSIFY, 200, 0.500)
    (bucket,) = traffic.answer().buckets
    assert bucket.p50_ms is not None
    assert 20 <= bucket.p50_ms <= 25
    assert bucket.p95_ms is not None
    assert 500 <= bucket.p95_ms <= 625


def test_extreme_durations_have_a_bin(traffic: Traffic) -> None:
    traffic.request(CLASSIFY, 200, 0.0)
    traffic.request(CLASSIFY, 200, 1e6)
    (bucket,) = traffic.answer().buckets
    assert bucket.p50_ms is not None
    assert bucket.p95_ms is not None
    assert bucket.p50_ms < 1 < 100_000 < bucket.p95_ms


def test_answers_by_language_and_task(traffic: Traffic) -> None:
    traffic.answered(said("de"))
    traffic.answered(said("fr"))
    traffic.answered(said("de", abstained=True))
    (bucket,) = traffic.answer().buckets
    assert (bucket.answers, bucket.abstained) == (3, 1)
    assert bucket.languages == {"de": 2, "fr": 1}
    assert bucket.tasks == {"a/b": 2}
    assert (bucket.requests, bucket.p50_ms) == (0, None)


def test_names_are_bounded(traffic: Traffic) -> None:
    for number in range(MOST_NAMES + 5):
        traffic.answered(said(task=f"a/t{number}"))
    (bucket,) = traffic.answer().buckets
    assert len(bucket.tasks) == MOST_NAMES + 1
    assert bucket.tasks[OTHER] == 5


def test_an_hour_is_kept_and_quiet_times_are_left_out(traffic: Traffic, clock: Clock) -> None:
    traffic.request(CLASSIFY, 200, 0.01)
    clock.now += 600
    traffic.request(CLASSIFY, 200, 0.01)
    found = traffic.answer()
    assert len(found.buckets) == 2
    assert found.buckets[0].at < found.buckets[1].at < found.until
    clock.now += 3000  # the first is an hour ago now
    assert len(traffic.answer().buckets) == 1
    for _ in range(2 * BUCKETS):
        clock.now += 10
        traffic.request(CLASSIFY, 200, 0.01)
    assert len(traffic.answer().buckets) == BUCKETS


def test_a_clock_that_is_set_back_loses_nothing(traffic: Traffic, clock: Clock) -> None:
    traffic.request(CLASSIFY, 200, 0.01)
    clock.now -= 60
    traffic.request(CLASSIFY, 200, 0.01)
    assert [bucket.requests for bucket in traffic.answer().buckets] == [2]


def test_processes_can_be_told_apart(clock: Clock) -> None:
    assert Traffic(clock).answer().process != Traffic(clock).answer().process

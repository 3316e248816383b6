"""The typed client against a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from mole import Mole, MoleAPIError, MoleConnectionError, Retry

ONCE = Retry(attempts=1)
WORKERS: dict[str, Any] = {
    "workers": [
        {
            "worker_id": "worker-0",
            "url": "http://127.0.0.1:8001",
            "model_key": "gemma-3-270m",
            "state": "healthy",
            "outstanding": 0,
            "queue_depth": 0,
            "latency_ms": {"p50": 100.0, "p95": None},
            "tasks": ["a/b"],
        }
    ],
    "mapping": {"loaded_at": "2026-01-01T00:00:00Z"},
}


def test_classify_sends_only_what_is_stated_and_reads_the_answer(coordinator):
    with Mole(coordinator.url) as mole:
        answer = mole.classify(
            "Umsatz stieg.", "Good news?", task="finance/sentiment_analysis", language=None
        )
    assert answer.result == "positive"
    assert answer.routing_path[0].choice == "de"
    method, path, body, headers = coordinator.asked[0]
    assert (method, path) == ("POST", "/api/v1/classify")
    assert body == {
        "text": "Umsatz stieg.",
        "description": "Good news?",
        "options": {"task": "finance/sentiment_analysis"},
    }
    assert "Authorization" not in headers


def test_no_options_are_sent_where_none_is_stated(coordinator):
    with Mole(coordinator.url) as mole:
        mole.classify("x")
    assert coordinator.asked[0][2] == {"text": "x"}


def test_the_api_key_is_a_bearer_token(coordinator):
    with Mole(coordinator.url, api_key="k") as mole:
        mole.classify("x")
    assert {k.lower(): v for k, v in coordinator.asked[0][3].items()}["authorization"] == "Bearer k"


def test_route_tasks_workers(coordinator):
    with Mole(coordinator.url + "/") as mole:
        coordinator.answers(
            {
                "request_id": "r",
                "language": "de",
                "language_probability": 0.9,
                "domain": None,
                "domain_probabilities": {},
                "task": None,
                "task_probabilities": {},
                "confidence": 0.1,
                "expert": None,
                "candidates": [],
                "timings_ms": {},
            }
        )
        assert mole.route("x").task is None
        coordinator.answers({"tasks": []})
        assert mole.tasks() == []
        coordinator.answers(WORKERS)
        assert mole.workers().workers[0].state == "healthy"
        coordinator.answers({"status": "loading", "mode": "coordinator"}, 503)
        assert mole.health().status == "loading"
    assert [asked[1] for asked in coordinator.asked] == [
        "/api/v1/route",
        "/api/v1/tasks",
        "/api/v1/workers",
        "/api/v1/health",
    ]


def test_problem_details_become_an_error(coordinator):
    problem = {"type": "t:no-worker", "title": "No worker", "status": 503, "detail": "All down.", "more": 1}
    coordinator.answers(problem, 503, Retry_After="7")
    with Mole(coordinator.url, retry=ONCE) as mole, pytest.raises(MoleAPIError, match="All down") as raised:
        mole.classify("x")
    assert raised.value.status == 503
    assert raised.value.retry_after_s == 7
    assert raised.value.problem.type == "t:no-worker"
    assert (raised.value.problem.model_extra or {})["more"] == 1


def test_an_error_page_of_a_proxy_is_an_api_error_too(coordinator):
    coordinator.answers(b"<html>Bad gateway</html>", 502)
    with Mole(coordinator.url, retry=ONCE) as mole, pytest.raises(MoleAPIError) as raised:
        mole.classify("x")
    assert raised.value.status == 502
    assert raised.value.retry_after_s is None


def test_something_else_that_answers_is_no_mole_service(coordinator):
    coordinator.answers(b"hello")
    with Mole(coordinator.url) as mole, pytest.raises(MoleConnectionError, match="something else"):
        mole.classify("x")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:8000", "ftp://127.0.0.1", "http://[::1"])
def test_no_service_and_unusable_urls(url):
    with pytest.raises(MoleConnectionError, match="no MoLE service answers"), Mole(url, retry=ONCE) as mole:
        mole.tasks()


def test_public_names():
    import mole

    assert all(getattr(mole, name).__name__ == name for name in mole.__all__)
    with pytest.raises(AttributeError):
        _ = mole.nothing


def test_feedback_sends_only_what_is_said(coordinator):
    receipt = {"request_id": "r-1", "received_at": "2026-01-01T00:00:00Z", "replaced": True}
    coordinator.answers(receipt, 202)
    with Mole(coordinator.url) as mole:
        assert mole.feedback("r-1", correct_label="neutral").replaced
        mole.feedback("r-1", correct_task="a/b", score=0.0)
    assert [asked[:3] for asked in coordinator.asked] == [
        ("POST", "/api/v1/feedback", {"request_id": "r-1", "correct_label": "neutral"}),
        ("POST", "/api/v1/feedback", {"request_id": "r-1", "correct_task": "a/b", "score": 0.0}),
    ]

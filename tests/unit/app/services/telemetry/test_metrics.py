from __future__ import annotations

from app.services.telemetry.metrics import Metrics


def test_a_worker_that_left_the_mapping_leaves_no_series() -> None:
    metrics = Metrics()
    for worker in ("gone", "kept"):
        metrics.count_worker_call(worker, "ok", 0.1)
        metrics.count_ejection(worker, "reset")
        metrics.count_trial(worker, "ok")
        metrics.count_view(worker, "down")
    metrics.keep_workers({"kept"})
    text = metrics.render().decode()
    assert "gone" not in text
    for name in ("requests_total", "duration_seconds_count", "ejections_total", "trials_total"):
        assert any(line.startswith(f"mole_worker_{name}{{") and "kept" in line for line in text.splitlines())


def test_a_request_is_told_by_method_and_route() -> None:
    metrics = Metrics()
    for method in ("GET", "POST", "BREW"):
        metrics.count_request(method, "/api/v1/jobs", 200, 0.1)
    text = metrics.render().decode()
    for method in ("GET", "POST", "other"):
        labels = f'method="{method}",route="/api/v1/jobs"'
        assert f'mole_requests_total{{{labels},status="200"}} 1.0' in text
        assert f"mole_request_duration_seconds_count{{{labels}}} 1.0" in text

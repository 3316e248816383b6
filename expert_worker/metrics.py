"""The worker's Prometheus metrics; every label has few values."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """One set of metrics per application, so that two in one process do not clash."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mole_requests_total", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.duration = Histogram(
            "mole_request_duration_seconds",
            "From the request's first byte to the answer's.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.experts = Counter(
            "mole_expert_requests_total",
            "Texts classified, by task and outcome (ok, or the problem's type).",
            ["task", "outcome"],
            registry=self.registry,
        )
        self.queue_depth = Gauge("mole_queue_depth", "Requests that wait or run.", registry=self.registry)
        self.ready = Gauge("mole_ready", "1 when the worker takes requests.", registry=self.registry)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

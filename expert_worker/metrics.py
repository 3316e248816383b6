"""The worker's Prometheus metrics; every label has few values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from moe_router.tally import SizeTally

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass(slots=True, eq=False)
class _Batches(Collector):
    """Turns a tally into a histogram when it is scraped."""

    tally: SizeTally

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram."""
        yield HistogramMetricFamily(
            "mole_batch_size",
            "Requests computed together.",
            buckets=self.tally.buckets(),
            sum_value=self.tally.total,
        )


@dataclass(slots=True, eq=False)
class _Cut(Collector):
    """Turns the pool's counts into a counter when it is scraped."""

    counts: Mapping[str, int] = field(default_factory=dict)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counter."""
        family = CounterMetricFamily(
            "mole_texts_truncated",
            "Texts longer than the model's limit: their ends were not read.",
            labels=["task"],
        )
        for task, count in self.counts.items():
            family.add_metric([task], count)
        yield family


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
        self._batches = _Batches(SizeTally())
        self._cut = _Cut()
        self.registry.register(self._batches)
        self.registry.register(self._cut)
        self.ready = Gauge("mole_ready", "1 when the worker takes requests.", registry=self.registry)

    def render(self, batches: SizeTally | None = None, cut: Mapping[str, int] | None = None) -> bytes:
        """The text that Prometheus scrapes; the pool keeps count of its batches, and of texts it cut."""
        self._batches.tally = batches or self._batches.tally
        self._cut.counts = cut or self._cut.counts
        return generate_latest(self.registry)

"""Metrics of what is now: read when they are scraped, so that nothing has to keep them up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from moe_router.contracts import WorkerInfo
from moe_router.gating.batching import EncoderCounts

STATES = ("healthy", "loading", "draining", "ejected", "down", "refused")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The coordinator at one moment."""

    workers: list[WorkerInfo]
    requests: int
    """Under way, waiting ones included."""
    waiting: dict[str, int]
    """By what they wait for: gating, or a model key."""
    encoder: EncoderCounts | None
    configuration_loaded: str | None
    configuration_refused: bool


class RuntimeCollector(Collector):
    """Turns a snapshot into metrics; workers and models that left the mapping leave no series behind."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Nothing: what would be collected before the start is not known."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        now = self._snapshot()
        yield from _fleet(now.workers)
        requests = GaugeMetricFamily("mole_requests_in_progress", "Requests and items of batches under way.")
        requests.add_metric([], now.requests)
        yield requests
        waiting = GaugeMetricFamily(
            "mole_requests_waiting", "Requests that wait, by what for.", labels=["stage"]
        )
        for stage, count in now.waiting.items():
            waiting.add_metric([stage], count)
        yield waiting
        refused = GaugeMetricFamily(
            "mole_configuration_refused", "1 while the last edit of the files is refused."
        )
        refused.add_metric([], now.configuration_refused)
        yield refused
        if now.configuration_loaded is not None:
            loaded = GaugeMetricFamily(
                "mole_configuration_loaded_timestamp_seconds", "When the files in force were read."
            )
            loaded.add_metric([], datetime.fromisoformat(now.configuration_loaded).timestamp())
            yield loaded
        if now.encoder is not None:
            yield from _encoder(now.encoder)


def _fleet(workers: list[WorkerInfo]) -> Iterator[Metric]:
    by_state = GaugeMetricFamily("mole_workers", "Workers of the mapping.", labels=["state"])
    for state in STATES:
        by_state.add_metric([state], sum(worker.state == state for worker in workers))
    yield by_state
    each = GaugeMetricFamily("mole_worker_state", "1 for the worker's state.", labels=["worker", "state"])
    outstanding = GaugeMetricFamily(
        "mole_worker_requests_in_progress", "Calls in flight at the worker.", labels=["worker"]
    )
    depth = GaugeMetricFamily("mole_worker_queue_depth", "What the worker last reported.", labels=["worker"])
    for worker_id, worker in {worker.worker_id: worker for worker in workers}.items():
        for state in STATES:
            each.add_metric([worker_id, state], worker.state == state)
        outstanding.add_metric([worker_id], worker.outstanding)
        if worker.queue_depth is not None:
            depth.add_metric([worker_id], worker.queue_depth)
    yield from (each, outstanding, depth)


def _encoder(counts: EncoderCounts) -> Iterator[Metric]:
    yield HistogramMetricFamily(
        "mole_encoder_batch_size",
        "Texts encoded together.",
        buckets=counts.batches.buckets(),
        sum_value=counts.batches.total,
    )
    cache = CounterMetricFamily(
        "mole_description_cache_requests", "Descriptions looked up, by result.", labels=["result"]
    )
    cache.add_metric(["hit"], counts.cache_hits)
    cache.add_metric(["miss"], counts.cache_misses)
    yield cache

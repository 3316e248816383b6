"""The coordinator's Prometheus metrics; every label has few values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from prometheus_client import CollectorRegistry, Counter, generate_latest

from app.services.telemetry.tallies import CounterTally, HistogramTally
from moe_router.contracts import Timings

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
STEP_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Any other method: a client may send what it likes."""


class Metrics:
    """One set of metrics per application, so that two in one process do not clash."""

    def __init__(self, also: Callable[[str, int, float], None] | None = None) -> None:
        """Sets every metric to zero; `also` is told of each request's route, status and seconds."""
        self._also = also
        self.registry = CollectorRegistry()
        self._requests = self._counter("mole_requests", "Requests answered.", "method", "route", "status")
        self._duration = self._histogram(
            "mole_request_duration_seconds",
            "From the request's head to the end of its answer.",
            ("method", "route"),
        )
        self._worker_calls = self._counter(
            "mole_worker_requests", "Calls of workers, failed attempts included.", "worker", "outcome"
        )
        self._worker_duration = self._histogram(
            "mole_worker_duration_seconds", "Duration of calls of workers.", ("worker",)
        )
        self._ejections = self._counter(
            "mole_worker_ejections",
            "Times that a worker's breaker opened, by the failure that opened it.",
            "worker",
            "outcome",
        )
        self._trials = self._counter(
            "mole_worker_trials",
            "The coordinator's own requests to ejected workers, by how they ended.",
            "worker",
            "outcome",
        )
        self._views = self._counter(
            "mole_worker_probe_changes",
            "Times that a health probe found a worker changed, by what it is since.",
            "worker",
            "view",
        )
        self._failovers = Counter(
            "mole_failovers_total",
            "Failed calls whose request went on to another worker, if one was left.",
            ["outcome"],
            registry=self.registry,
        )
        self._hedges = Counter(
            "mole_hedges_total",
            "Second calls beside a slow one, by whose answer was taken; withheld where the budget was spent.",
            ["outcome"],
            registry=self.registry,
        )
        self._steps = self._histogram(
            "mole_gating_step_duration_seconds",
            "Duration of each gating step that was taken.",
            ("step",),
            STEP_SECONDS,
        )
        self._encoder_passes = Counter(
            "mole_encoder_passes_total", "Passes of the text encoder.", registry=self.registry
        )
        self._abstentions = Counter(
            "mole_abstentions_total",
            "Requests that gating abstained from.",
            ["reason"],
            registry=self.registry,
        )
        self._records = Counter(
            "mole_decision_records_total",
            "Decisions handed to the database; any outcome but `written` lost them.",
            ["outcome"],
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> CounterTally:
        made = CounterTally(name, text, labels)
        self.registry.register(made)
        return made

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: tuple[float, ...] = REQUEST_SECONDS
    ) -> HistogramTally:
        made = HistogramTally(name, text, labels, buckets)
        self.registry.register(made)
        return made

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Notes an answered request; `route` is the path's template."""
        if method not in METHODS:
            method = OTHER
        self._requests.count(method, route, str(status))
        self._duration.observe(seconds, method, route)
        if self._also is not None:
            self._also(route, status, seconds)

    def count_worker_call(self, worker_id: str, outcome: str, seconds: float) -> None:
        """Notes one attempt at one worker."""
        self._worker_calls.count(worker_id, outcome)
        self._worker_duration.observe(seconds, worker_id)

    def keep_workers(self, worker_ids: Collection[str]) -> None:
        """Forgets every other worker: one that left the mapping must not leave its series for ever."""
        for tally in (self._worker_calls, self._worker_duration, self._ejections, self._trials, self._views):
            tally.keep(worker_ids)

    def count_ejection(self, worker_id: str, outcome: str) -> None:
        """Notes that a breaker has opened."""
        self._ejections.count(worker_id, outcome)

    def count_trial(self, worker_id: str, outcome: str) -> None:
        """Notes how a trial of an ejected worker ended."""
        self._trials.count(worker_id, outcome)

    def count_view(self, worker_id: str, view: str) -> None:
        """Notes that a probe found a worker in another condition than before."""
        self._views.count(worker_id, view)

    def count_failover(self, outcome: str) -> None:
        """Notes that a call failed as `outcome` says, and the request goes on to another worker."""
        self._failovers.labels(outcome).inc()

    def count_hedge(self, outcome: str) -> None:
        """Notes a hedge: won, lost, failed or cancelled with its request, or withheld."""
        self._hedges.labels(outcome).inc()

    def count_decision(self, timings: Timings, encoder_passes: int, abstained: str | None) -> None:
        """Notes one gating decision; steps that were not taken are 0 ms and not noted."""
        for step, milliseconds in (
            ("language", timings.language),
            ("encode", timings.encode),
            ("domain", timings.domain),
            ("task", timings.task),
        ):
            if milliseconds:
                self._steps.observe(milliseconds / 1000, step)
        if encoder_passes:
            self._encoder_passes.inc(encoder_passes)
        if abstained is not None:
            self._abstentions.labels(abstained).inc()

    def count_records(self, outcome: str, number: int) -> None:
        """Notes what became of decisions that were to be recorded."""
        self._records.labels(outcome).inc(number)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

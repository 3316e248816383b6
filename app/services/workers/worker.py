"""One worker as the coordinator sees it: what probes say, what calls say, how busy it is."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from app.services.within import within
from app.services.workers.breaker import Breaker
from moe_router.contracts import ExpertTasksAnswer, Latency, ServedTask, WorkerInfo, WorkerState
from moe_router.mapping import WorkerSpec

ProbeView = Literal["unknown", "ready", "loading", "draining", "down", "refused"]
LATENCIES_KEPT = 256
MISSES_TO_DOWN = 2
"""Probes without an answer in a row after which nothing more is sent to a worker."""
MISSES_TO_LOST = 3
"""The same, after which nothing is awaited from it either."""
RECKON_EVERY = 16
"""Answers between two reckonings of the 95th percentile."""
AMPLE_P95S = 4.0
"""Times the 95th percentile of its latencies are ample time for a worker."""
LEAST_AMPLE_S = 1.0
TRIAL_PATIENCE_S = 5.0
"""How old a trial may be whose end others wait for: one that takes longer may hang."""


@dataclass(slots=True, eq=False)
class Worker:
    """Changed on the event loop only."""

    worker_id: str
    spec: WorkerSpec
    breaker: Breaker
    max_in_flight: int
    view: ProbeView = "unknown"
    view_reason: str | None = "not probed yet"
    outstanding: int = 0
    missed: int = 0
    """Probes without an answer, in a row."""
    calls: set[within] = field(default_factory=set)
    """The bounds on the calls in flight."""
    queue_depth: int | None = None
    foreign_queue: int = 0
    """What other coordinators had queued there when it was last probed."""
    tasks: tuple[ServedTask, ...] | None = None
    task_keys: frozenset[str] | None = None
    """Of the tasks."""
    started: int = 0
    """How often a probe found it ready that had been down, or was loading."""
    trials: int = 0
    """How many the prober has begun."""
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    p95_ms: float | None = None
    """Of the latencies, not always of the newest; None where there are few."""
    answered_at: float = -math.inf
    """When it last answered a call well."""
    uncounted: int = 0
    """Latencies since `p95_ms` was reckoned."""
    held: dict[str, int] = field(default_factory=dict)
    """Calls in flight, by caller."""

    @property
    def model_key(self) -> str:
        """The model that the mapping says it holds."""
        return self.spec.base_model_key

    @property
    def load(self) -> int:
        """Calls that one more would wait behind."""
        return self.outstanding + self.foreign_queue

    @property
    def full(self) -> bool:
        """As many calls in flight as may be."""
        return self.outstanding >= self.max_in_flight

    @property
    def comebacks(self) -> int:
        """How often it has shown itself to work again after it did not."""
        return self.started + self.breaker.closings

    def take(self, now: float, caller: str) -> None:
        """A call begins, or is granted to one who waited."""
        self.outstanding += 1
        self.held[caller] = self.held.get(caller, 0) + 1
        self.breaker.begin(now)

    def end(self, caller: str) -> None:
        """A call is over."""
        self.outstanding -= 1
        self.held[caller] -= 1
        if not self.held[caller]:
            del self.held[caller]

    def answered(self, now: float, began: float) -> None:
        """Notes how long a call took that was answered well."""
        self.answered_at = now
        self.latencies_ms.append((now - began) * 1000)
        self.uncounted += 1
        if self.uncounted >= RECKON_EVERY:
            self.uncounted = 0
            self.p95_ms = quantiles(self.latencies_ms).p95

    @property
    def ample_s(self) -> float | None:
        """Within which it answers unless something is wrong, in seconds; None where that is not known."""
        return None if self.p95_ms is None else max(self.p95_ms / 1000 * AMPLE_P95S, LEAST_AMPLE_S)

    def hung(self, began: float, waited_s: float) -> bool:
        """Whether it had ample time for a call that it did not answer, and answered no other meanwhile."""
        ample_s = self.ample_s
        return ample_s is not None and waited_s >= ample_s and self.answered_at < began

    def give_back(self, caller: str) -> None:
        """A call that was granted never began."""
        self.end(caller)
        self.breaker.abandoned(math.inf)

    def state(self, now: float) -> WorkerState:
        """The state that `/workers` tells; `now` in seconds of the breaker's clock."""
        if self.view == "refused":
            return "refused"
        if self.spec.drain or self.view == "draining":
            return "draining"
        if self.view == "loading":
            return "loading"
        if self.view == "down":
            return "down"
        if self.breaker.open_until is not None:
            return "ejected"
        return "healthy" if self.view == "ready" else "down"

    def available(self, now: float) -> bool:
        """Whether a call may be tried."""
        return self._in_use() and (self.breaker.open_until is None or self.breaker.allows(now))

    def on_trial(self, now: float) -> bool:
        """Whether a call is under way that decides in a moment if others may be tried."""
        breaker = self.breaker
        return self._in_use() and breaker.trial and now < breaker.trial_at + TRIAL_PATIENCE_S

    def _in_use(self) -> bool:
        """Whether probes and mapping let calls pass; a worker not probed yet can only refuse them."""
        return self.view in ("ready", "unknown") and not self.spec.drain

    def serves(self, task_key: str) -> bool:
        """Whether it says so itself; True while it has not been asked."""
        return self.task_keys is None or task_key in self.task_keys

    def probed(self, view: ProbeView, reason: str | None = None, queue_depth: int | None = None) -> None:
        """Notes what a health probe found."""
        if view == "ready" and self.view in ("down", "loading"):
            self.started += 1
        self.view, self.view_reason, self.queue_depth, self.missed = view, reason, queue_depth, 0
        self.foreign_queue = max((queue_depth or 0) - self.outstanding, 0)
        if view in ("down", "loading"):
            self._know(None)  # another process may come up there, with other tasks

    def unanswered(self, reason: str) -> None:
        """Notes a probe without an answer: one alone may be a stall, after several its calls end, too."""
        missed = self.missed + 1
        if missed >= MISSES_TO_DOWN or self.view != "ready":
            self.probed("down", reason)
        self.missed = missed
        if missed >= MISSES_TO_LOST:
            for call in self.calls:
                call.cut()

    def told_tasks(self, answer: ExpertTasksAnswer) -> None:
        """Notes what the worker says it serves; refuses it where it holds another model."""
        if answer.model_key != self.model_key:
            self.refuse(f"it serves the model {answer.model_key[:200]!r}, not {self.model_key!r}")
            return
        self._know(tuple(answer.tasks))

    def refuse(self, reason: str) -> None:
        """Nothing is sent to it until a probe has read anew what it serves, and finds it right."""
        self.view, self.view_reason = "refused", reason
        self._know(None)

    def _know(self, tasks: tuple[ServedTask, ...] | None) -> None:
        self.tasks = tasks
        self.task_keys = None if tasks is None else frozenset(task.task_key for task in tasks)

    def info(self, now: float) -> WorkerInfo:
        """What `/workers` tells."""
        state = self.state(now)
        reason = {
            "ejected": self.breaker.reason,
            "healthy": None,
            "draining": "drain is set in the mapping" if self.spec.drain else self.view_reason,
        }.get(state, self.view_reason)
        until = None
        if state == "ejected" and self.breaker.open_until is not None:
            until = _wall_clock(self.breaker.open_until - now)
        return WorkerInfo(
            worker_id=self.worker_id,
            url=self.spec.url,
            model_key=self.model_key,
            state=state,
            reason=reason,
            until=until,
            outstanding=self.outstanding,
            queue_depth=self.queue_depth,
            latency_ms=quantiles(self.latencies_ms),
            tasks=[task.task_key for task in self.tasks or ()],
            adapters=sorted({name for task in self.tasks or () for name in task.adapters}),
        )


def _wall_clock(seconds_from_now: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds_from_now)).isoformat(timespec="milliseconds")


def quantiles(values: deque[float]) -> Latency:
    """Median and 95th percentile of what is kept."""
    if not values:
        return Latency(p50=None, p95=None)
    ranked = sorted(values)
    return Latency(
        p50=round(ranked[len(ranked) // 2], 3),
        p95=round(ranked[min(int(len(ranked) * 0.95), len(ranked) - 1)], 3),
    )

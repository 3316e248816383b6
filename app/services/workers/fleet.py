"""The workers of the mapping, and which of them to ask."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from app.services.workers.breaker import Breaker
from app.services.workers.worker import Worker
from moe_router.contracts import WorkerInfo
from moe_router.mapping import WorkerMapping


class Fleet:
    """Chooses by least outstanding calls among two picked at random; calls nobody itself."""

    def __init__(
        self,
        *,
        eject_after: int,
        eject_s: float,
        max_in_flight: int,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.clock = clock
        self._eject_after = eject_after
        self._eject_s = eject_s
        self._max_in_flight = max_in_flight
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._workers: dict[str, Worker] = {}
        self._by_model: dict[str, list[Worker]] = {}

    @property
    def all(self) -> list[Worker]:
        """Every worker of the mapping."""
        return list(self._workers.values())

    def use(self, mapping: WorkerMapping) -> None:
        """Takes another mapping; a worker whose place and model stay keeps what is known of it.

        Calls in flight hold the workers that they began with.
        """
        workers = {}
        for worker_id, spec in mapping.workers.items():
            old = self._workers.get(worker_id)
            if old and (old.spec.url, old.model_key) == (spec.url, spec.base_model_key):
                old.spec = spec
                workers[worker_id] = old
            else:
                breaker = Breaker(self._eject_after, self._eject_s)
                workers[worker_id] = Worker(worker_id, spec, breaker, self._max_in_flight)
        self._workers = workers
        self._by_model = {
            key: [workers[worker_id] for worker_id in mapping.workers_for(key)]
            for key in mapping.model_to_worker
        }

    def holds(self, model_key: str) -> bool:
        """Whether the mapping names a worker for the model, reachable or not."""
        return bool(self._by_model.get(model_key))

    def of(self, model_key: str) -> list[Worker]:
        """The model's workers, in the file's order."""
        return self._by_model.get(model_key, [])

    def candidates(self, model_key: str, task_key: str) -> list[Worker]:
        """The workers to try, best first; empty where none can be reached now."""
        now = self.clock()
        found = [w for w in self._by_model.get(model_key, ()) if w.available(now) and w.serves(task_key)]
        if len(found) < 2:
            return found
        # Power of two choices: the least loaded of all would draw every coordinator at once.
        pair = self._rng.sample(found, 2)
        first = min(pair, key=_burden)
        rest = sorted((w for w in found if w is not first), key=_burden)
        return [first, *rest]

    def reachable(self, model_key: str, task_key: str) -> bool:
        """Whether there are candidates."""
        now = self.clock()
        for worker in self._by_model.get(model_key, ()):
            if worker.available(now) and worker.serves(task_key):
                return True
        return False

    def on_trial(self, model_key: str, task_key: str) -> bool:
        """Whether there may be candidates in a moment."""
        now = self.clock()
        return any(w.on_trial(now) and w.serves(task_key) for w in self.of(model_key))

    def full(self, model_key: str) -> bool:
        """Whether every worker of the model that is worth waiting for is full or on trial; False for none."""
        now, found = self.clock(), False
        for worker in self.of(model_key):
            if worker.available(now):
                found = True
                if not worker.full:
                    return False
            elif worker.on_trial(now):
                found = True
        return found

    def infos(self) -> list[WorkerInfo]:
        """What `/workers` tells."""
        now = self.clock()
        return [worker.info(now) for worker in self.all]

    def states(self) -> Counter[str]:
        """How many workers are in each state."""
        now = self.clock()
        return Counter(worker.state(now) for worker in self.all)


def _burden(worker: Worker) -> tuple[bool, bool, int]:
    """A worker on trial comes last: the prober tries it with a request of its own before long."""
    return worker.full, worker.breaker.open_until is not None, worker.load

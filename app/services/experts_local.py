"""Experts in this process: the pool that a worker runs, over several base models."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from app.services.ports import Call
from app.services.telemetry.metrics import Metrics
from app.services.workers.faults import Told
from app.services.workers.worker import quantiles
from moe_router.contracts import ExpertAnswer, ExpertRequest, WorkerInfo
from moe_router.errors import ModelAssetError, MoleError, NoWorkerError
from moe_router.mapping import WorkerMapping
from moe_router.members import ExpertMembers
from moe_router.registry import Expert, Registry, TaskSpec

LOCAL = "local"
LATENCIES_KEPT = 256
WARM_UP_TEXT = "Hello."

logger = logging.getLogger(__name__)


class Pool(Protocol):
    """What is needed of an `LruModelPool`."""

    async def classify(
        self, expert: Expert, request: ExpertRequest, *, deadline: float | None = None, caller: str = ""
    ) -> ExpertAnswer:
        """Answers one request, loading its model first where need be."""

    async def reload(self, registry: Registry) -> None:
        """Serves an edited registry; raises MoleError and stays as it was where it cannot."""

    def failures(self) -> Mapping[str, str]:
        """Why models could not be loaded when that was last tried, by key."""

    def may_answer(self, key: str) -> bool:
        """Whether the model is in memory or may be loaded now."""

    def queue_depth(self) -> int:
        """Requests that wait or run."""

    async def aclose(self) -> None:
        """Lets the models go."""


PoolFactory = Callable[[Registry], Pool]


class LocalExperts:
    """Every model of the registry is served here, whatever the mapping says."""

    def __init__(self, make_pool: PoolFactory, metrics: Metrics) -> None:
        self._make_pool = make_pool
        self._metrics = metrics
        self._registry: Registry | None = None
        self._pool: Pool | None = None
        self._outstanding = 0
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._background: set[asyncio.Task[None]] = set()
        self._told = Told(logger)

    def served(self, model_key: str) -> bool:
        """Whether the registry declares the model."""
        return self._registry is not None and model_key in self._registry.base_models

    def reachable(self, expert: Expert) -> bool:
        """Whether the model is declared, and did not just fail to load: it is loaded when it is asked for."""
        key = expert.base_model_key
        return self.served(key) and self._pool is not None and self._pool.may_answer(key)

    def on_trial(self, _expert: Expert) -> bool:
        """Never: nothing is ejected here."""
        return False

    def candidates(self, expert: Expert) -> list[str]:
        """This process."""
        return [LOCAL] if self.reachable(expert) else []

    async def classify(
        self, expert: Expert, _task: TaskSpec, request: ExpertMembers, call: Call
    ) -> tuple[str, ExpertAnswer]:
        """Asks the pool.

        Raises:
            MoleError: NoWorkerError where the task cannot be served now, without the reason, which may name
                files and addresses: it is in the log and in `workers`; else what the pool raises.
        """
        if self._pool is None:
            raise NoWorkerError("The experts are not loaded.")
        asked = ExpertRequest(**request)
        started = time.monotonic()
        outcome = "cancelled"
        self._outstanding += 1
        try:
            answer = await self._pool.classify(expert, asked, deadline=call.deadline, caller=call.caller)
            outcome = "ok"
            self._latencies_ms.append((time.monotonic() - started) * 1000)
            return LOCAL, answer
        except (ModelAssetError, NoWorkerError) as error:
            outcome = error.slug
            self._told.warn("%s cannot be served now: %s", expert.task_key, error.detail)
            raise NoWorkerError(f"{expert.task_key} cannot be served now.") from None
        except MoleError as error:
            outcome = error.slug
            raise
        finally:
            self._outstanding -= 1
            spent_s = time.monotonic() - started
            call.worker_ms += spent_s * 1000
            self._metrics.count_worker_call(LOCAL, outcome, spent_s)

    def workers(self) -> list[WorkerInfo]:
        """This process, once for each model."""
        if self._registry is None or self._pool is None:
            return []
        by_model: dict[str, list[str]] = {key: [] for key in self._registry.base_models}
        adapters: dict[str, set[str]] = {key: set() for key in by_model}
        for key in self._registry.tasks:
            experts = self._registry.all_experts(key)
            for model_key in {e.base_model_key for e in experts}:
                by_model[model_key].append(key)
            for expert in experts:
                adapters[expert.base_model_key] |= {expert.adapter_name} if expert.adapter_name else set()
        failures = self._pool.failures()
        return [
            WorkerInfo(
                worker_id=LOCAL,
                url="",
                model_key=model_key,
                state="down" if model_key in failures else "healthy",
                reason=failures.get(model_key),
                outstanding=self._outstanding,
                queue_depth=self._pool.queue_depth(),
                latency_ms=quantiles(self._latencies_ms),
                tasks=tasks,
                adapters=sorted(adapters[model_key]),
            )
            for model_key, tasks in by_model.items()
        ]

    def waiting(self) -> dict[str, int]:
        """Requests wait in the pool's own queue."""
        return {}

    async def use(self, registry: Registry, _mapping: WorkerMapping) -> None:
        """Takes another registry; models in memory stay there, and what did not change goes on answering.

        Raises:
            ModelAssetError: an expert of a model in memory cannot be made; all stays as it was.
        """
        if self._registry == registry:
            return
        if self._pool is None:
            self._pool = self._make_pool(registry)
        else:
            await self._pool.reload(registry)
        self._registry = registry
        self._spawn(self._warm(self._pool, registry))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _warm(self, pool: Pool, registry: Registry) -> None:
        """Loads the model that most tasks use, so that the first caller need not wait for it."""
        first_experts = [registry.all_experts(key)[0] for key in registry.tasks]
        model_key, _ = Counter(e.base_model_key for e in first_experts).most_common(1)[0]
        expert = next(e for e in first_experts if e.base_model_key == model_key)
        language = expert.languages[0] if expert.languages else "en"
        try:
            await pool.classify(
                expert, ExpertRequest(task_key=expert.task_key, text=WARM_UP_TEXT, language=language)
            )
        except MoleError as error:
            logger.warning("the model %s is not loaded ahead: %s", model_key, error.detail)

    async def start(self) -> None:
        """Nothing to begin: `use` has."""

    async def aclose(self) -> None:
        """Lets all models go."""
        for task in self._background:
            task.cancel()
        if self._pool is not None:
            await self._pool.aclose()

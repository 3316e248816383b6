"""The worker's life: loading, ready, draining or failed; and the pool that it guards."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Protocol

from expert_worker.metrics import Metrics
from expert_worker.settings import Settings
from moe_router.assets.cache import Progress
from moe_router.contracts import ExpertAnswer, ExpertRequest, ReadyStatus, ServedTask, WorkerHealth
from moe_router.drain import Drain
from moe_router.errors import MoleError, NotReadyError
from moe_router.experts.engines.base import ServerAwayError
from moe_router.experts.memory import reclaim
from moe_router.file_watch import FileWatch
from moe_router.own_thread import in_own_thread
from moe_router.registry import Expert, Registry, load_registry
from moe_router.tally import SizeTally

logger = logging.getLogger(__name__)

RETRY_S = 5.0
"""Between two looks for a model server that is away."""


class Pool(Protocol):
    """What the service needs of a `SingleModelPool`."""

    def preload(self, progress: Progress) -> None:
        """Loads the base model and the adapters; blocking."""

    def warm_up(self) -> None:
        """Runs one request; blocking."""

    async def reload(self, registry: Registry) -> None:
        """Serves an edited registry; raises MoleError and stays as it was where it cannot."""

    def experts(self) -> Iterable[Expert]:
        """What is served."""

    def failures(self) -> Mapping[str, str]:
        """Why experts of the model are not served, by task and name."""

    def find(self, task_key: str, language: str, adapter_name: str | None) -> Expert:
        """The expert for a request; raises MoleError where there is none."""

    async def classify(
        self, expert: Expert, request: ExpertRequest, *, deadline: float | None = None, caller: str = ""
    ) -> ExpertAnswer:
        """Answers one request; `deadline` in seconds of time.monotonic(), `caller` whose it is."""

    def queue_depth(self) -> int:
        """Requests that wait or run."""

    def batches(self) -> SizeTally:
        """How large the batches were."""

    def cut(self) -> Mapping[str, int]:
        """By task, requests of which a text was too long to be read to its end."""

    async def aclose(self) -> None:
        """Lets the model go."""


PoolFactory = Callable[[Registry, Settings], Pool]


def single_model_pool(registry: Registry, settings: Settings) -> Pool:
    """The pool of the product: one base model, never evicted."""
    if settings.hf_cache_path is not None:  # the hub's own library knows no other way, and reads it at import
        os.environ["HF_HUB_CACHE"] = str(settings.hf_cache_path)
    from moe_router.experts.pool import PoolConfig, SingleModelPool  # torch: only where a model is loaded

    config = PoolConfig(
        adapter_root=settings.adapter_path,
        cache_dir=settings.cache_dir,
        worker_id=settings.worker_id,
        max_concurrent=settings.max_concurrent,
        max_queue=settings.max_queue,
        max_batch_tokens=settings.max_batch_tokens,
        num_threads=settings.num_threads,
        require_4bit=settings.require_4bit,
        api_key=settings.engine_api_key.get_secret_value() if settings.engine_api_key else None,
    )
    return SingleModelPool(registry, settings.model_key, config)


class Service:
    """State of one worker process."""

    def __init__(self, settings: Settings | None, build_pool: PoolFactory) -> None:
        self._given = settings
        self._build_pool = build_pool
        self.metrics = Metrics()
        self.drain = Drain()
        self.registry: Registry | None = None
        self.progress = 0.0
        self.detail: str | None = "not started"
        self.failed = False
        self._pool: Pool | None = None
        self._ready = False
        self._loading: asyncio.Task[None] | None = None
        self._watch: FileWatch | None = None

    @cached_property
    def settings(self) -> Settings:
        """Read from the environment at the first use, hence not at import."""
        return self._given or Settings()

    @property
    def status(self) -> ReadyStatus:
        """How far the worker is."""
        if self.failed:
            return "failed"
        if self.drain.draining:
            return "draining"
        return "ready" if self._ready else "loading"

    @property
    def pool(self) -> Pool:
        """The loaded pool.

        Raises:
            NotReadyError: it is loading, draining or has failed.
        """
        if self._pool is None or self.status != "ready":
            reason = f": {self.detail}" if self.failed and self.detail is not None else "."
            raise NotReadyError(f"The worker is {self.status}{reason}")
        return self._pool

    def health(self) -> WorkerHealth:
        """The body of the health endpoints."""
        loaded = self._pool if self._ready else None
        return WorkerHealth(
            status=self.status,
            worker_id=self.settings.worker_id,
            model_key=self.settings.model_key,
            progress=1.0 if self._ready else self.progress,
            queue_depth=loaded.queue_depth() if loaded else 0,
            detail=self.detail,
        )

    def render_metrics(self) -> bytes:
        """The text that Prometheus scrapes."""
        self.metrics.queue_depth.set(self.health().queue_depth)
        self.metrics.ready.set(self.status == "ready")
        if self._pool is None:
            return self.metrics.render()
        return self.metrics.render(self._pool.batches(), self._pool.cut())

    def served(self) -> list[ServedTask]:
        """What is served, by task; empty while the model loads."""
        if self._pool is None or self.registry is None or not self._ready:
            return []
        adapters: dict[str, list[str]] = {}
        for expert in self._pool.experts():
            names = adapters.setdefault(expert.task_key, [])
            if expert.adapter_name and expert.adapter_name not in names:
                names.append(expert.adapter_name)
        return [
            ServedTask(
                task_key=key,
                languages=_listed(self.registry.languages_of(key)),
                labels=list(self.registry.task(key).label_set),
                adapters=names,
            )
            for key, names in adapters.items()
        ]

    def start(self) -> None:
        """Begins to load in the background."""
        self._loading = asyncio.create_task(self._load())

    async def reload(self) -> None:
        """Takes an edited registry; one that cannot be served is refused, and told in the health's detail.

        One that cannot be served for a passing reason is tried again, as the file then is. A worker that has
        failed begins anew.
        """
        if self.failed:
            reclaim()  # what the failed load left
            self.failed, self.progress = False, 0.0
            await self._try_to_load()
            return
        while await self._reload_waits():  # noqa: ASYNC110 - a model server does not tell when it is there
            await asyncio.sleep(RETRY_S)

    async def _reload_waits(self) -> bool:
        """Whether it must be tried again."""
        if self._pool is None or self.status != "ready":
            return False
        try:
            registry = await asyncio.to_thread(load_registry, self.settings.registry_file)
            await self._pool.reload(registry)
        except ServerAwayError as error:
            self.detail = f"an edit of the registry waits: {error.detail}"
            logger.warning("%s; it is tried again in %g s", self.detail, RETRY_S)
            return True
        except MoleError as error:
            self.detail = f"an edit of the registry is refused: {error.detail}"
            logger.error("%s", self.detail)
            return False
        except Exception as error:
            self.detail = f"an edit of the registry is refused: {type(error).__name__}: {error}"
            logger.exception("%s", self.detail)
            return False
        self.registry, self.detail = registry, self._unserved()
        logger.info("the edited registry is served")
        return False

    async def aclose(self) -> None:
        """Stops loading and lets the model go."""
        if self._watch is not None:
            await self._watch.aclose()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._pool is not None:
            await self._pool.aclose()

    async def _load(self) -> None:
        # Noted before it is read: an edit made while the model loads is seen afterwards.
        self._watch = FileWatch((self.settings.registry_file,), self.reload)
        self._watch.note()
        await self._try_to_load()
        self._watch.start()

    async def _try_to_load(self) -> None:
        try:
            await self._fill()
            self._ready, self.detail = True, self._unserved()
            self.metrics.ready.set(1)
            logger.info("worker %s is ready with %s", self.settings.worker_id, self.settings.model_key)
        except MoleError as error:
            self.failed, self.detail = True, error.detail
            logger.error("the worker cannot serve: %s", error.detail)
        except Exception as error:
            self.failed, self.detail = True, f"{type(error).__name__}: {error}"
            logger.exception("the worker cannot serve")

    def _unserved(self) -> str | None:
        failures = self._pool.failures() if self._pool is not None else {}
        for name, reason in failures.items():
            logger.warning("%s is not served: %s", name, reason)
        return "; ".join(f"{name} is not served: {reason}" for name, reason in failures.items()) or None

    async def _fill(self) -> None:
        """Loads the model; where that is at a server which is away, anew until it is there."""
        while self._pool is None:
            pool = await asyncio.to_thread(self._built)
            try:
                await in_own_thread(self._preload, pool)
            except ServerAwayError as error:
                await pool.aclose()
                self.detail, self.progress = error.detail, 0.0
                logger.warning("%s; it is asked again in %g s", error.detail, RETRY_S)
                await asyncio.sleep(RETRY_S)
            except Exception:
                await pool.aclose()
                raise
            else:
                self._pool = pool

    def _built(self) -> Pool:
        self.registry = load_registry(self.settings.registry_file)
        return self._build_pool(self.registry, self.settings)

    def _preload(self, pool: Pool) -> None:
        pool.preload(self._report)
        self._report("warming up", 0.99)
        pool.warm_up()

    def _report(self, message: str, fraction: float) -> None:
        # Called from the loading thread; two plain assignments need no lock.
        self.detail, self.progress = message, min(max(fraction, 0.0), 0.99)


def _listed(languages: tuple[str, ...] | None) -> list[str] | None:
    return None if languages is None else list(languages)

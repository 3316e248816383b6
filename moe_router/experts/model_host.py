"""A loaded base model with the experts on it, and the queue in front."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from moe_router.assets.cache import Progress
from moe_router.contracts import ExpertAnswer, ExpertRequest
from moe_router.errors import ModelAssetError, NoWorkerError
from moe_router.experts.batcher import Batcher
from moe_router.experts.engines.base import Engine, Job, Outcome, fed_beyond_cost, infer_halving
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.memory import reclaim
from moe_router.experts.roster import Roster, RosterBuilder, Served
from moe_router.experts.task_expert import Finding, TaskExpert
from moe_router.own_thread import in_own_thread
from moe_router.registry import BaseModelSpec, Expert, Registry
from moe_router.tally import SizeTally

logger = logging.getLogger(__name__)

MakeEngine = Callable[[BaseModelSpec, EngineOptions, Progress | None], Engine]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """How experts are run.

    Attributes:
        adapter_root: relative adapter and template paths are taken from here.
        cache_dir: keeps converted models.
        worker_id: named in answers.
        max_concurrent: batches in flight for a model; an engine still computes one at a time.
        max_queue: requests that may wait for a model, long texts counted as several; more are refused.
        max_batch_tokens: bound on the tokens of a batch, template heads not counted; see `Batcher`.
        max_text_tokens: a text is cut off after so many tokens, or where its model's context ends; extraction
            reads it whole, in windows.
        num_threads: CPU threads of a pass; None leaves it to torch.
        require_4bit: whether a model that asks for 4 bits is refused where they cannot be had.
        api_key: for a model server, where the registry names one.
        memory_budget_bytes: bound on the base models that an LruModelPool holds; None is measured.
    """

    adapter_root: Path
    cache_dir: Path
    worker_id: str
    max_concurrent: int = 1
    max_queue: int = 256
    max_batch_tokens: int = 1024
    max_text_tokens: int = 2048
    num_threads: int | None = None
    require_4bit: bool = False
    memory_budget_bytes: int | None = None
    api_key: str | None = field(default=None, repr=False)


class ModelHost:
    """One base model, every expert of the registry that uses it, and a batcher.

    Args:
        registry: where the experts are declared.
        model_key: the base model's key in it.
        config: how to run.
        engine_factory: loads the base model.
    """

    def __init__(
        self, registry: Registry, model_key: str, config: PoolConfig, engine_factory: MakeEngine = make_engine
    ) -> None:
        self._registry = registry
        self._config = config
        self._make_engine = engine_factory
        self.model_key = model_key
        self._roster = Roster()
        self._users: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        """By task, requests of which a text, or a field, was too long for the model to be read to its end."""
        self._unused = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()
        self._keepers = 0
        self._unkept = asyncio.Event()
        self._engine: Engine | None = None
        self._batcher: Batcher[Job, Outcome] | None = None

    @property
    def experts(self) -> dict[Expert, TaskExpert]:
        """What is served."""
        return {expert: served.expert for expert, served in self._roster.served.items()}

    @property
    def failures(self) -> dict[Expert, str]:
        """Why other experts of the registry are not."""
        return self._roster.failures

    @property
    def engine(self) -> Engine:
        """The loaded engine.

        Raises:
            NoWorkerError: the model is not loaded.
        """
        if self._engine is None:
            raise NoWorkerError(f"The model {self.model_key!r} is not loaded.")
        return self._engine

    def declare(self, registry: Registry) -> None:
        """Takes a registry before anything is loaded."""
        self._registry = registry

    def load(self, progress: Progress | None = None) -> None:
        """Loads the base model, the adapters and the templates; blocking.

        An expert that cannot be made is kept in `failures` and logged; it does not take the others down.

        Raises:
            ModelAssetError: the base model itself cannot be loaded.
            ServerAwayError: its own server is not there; the experts are not made.
        """
        spec = self._registry.base_models[self.model_key]
        options = EngineOptions(
            self._config.cache_dir,
            self._config.max_text_tokens,
            self._config.num_threads,
            self._config.api_key,
            require_4bit=self._config.require_4bit,
        )
        self._engine = self._make_engine(spec, options, progress)
        self._roster = self._builder().build(self._registry)
        self._batcher = Batcher(
            self._infer,
            max_batch_cost=self._config.max_batch_tokens,
            max_queue=self._config.max_queue,
            max_in_flight=self._config.max_concurrent,
            beyond=fed_beyond_cost,
        )

    def warm_up(self) -> None:
        """Asks every expert once: template heads are read, and the zero-shot experts' priors measured.

        An expert that fails is kept in `failures` as one that cannot be made.

        Raises:
            ModelAssetError: none is left.
            ServerAwayError: the model's own server is not there.
        """
        had_any = bool(self._roster.served)
        self._builder().warm_up(self._roster)
        if had_any and not self._roster.served:
            reasons = "; ".join(self.failures.values())
            raise ModelAssetError(f"{self.model_key!r} serves no expert: {reasons}")

    async def reload(self, registry: Registry) -> None:
        """Serves an edited registry; requests go on meanwhile, and old adapters go once none uses them.

        Raises:
            ModelAssetError: a new expert cannot be made, or the base model's own entry changed, which needs a
                restart; all stays as it was.
        """
        if not self.fits(registry):
            raise ModelAssetError(
                f"the entry of the base model {self.model_key!r} changed: restart to load it"
            )
        self.take(registry, await self.stage(registry))

    def fits(self, registry: Registry) -> bool:
        """Whether the base model's own entry is the same in another registry."""
        return registry.base_models.get(self.model_key) == self._registry.base_models[self.model_key]

    async def stage(self, registry: Registry) -> Roster:
        """Makes the experts of an edited registry that fits, beside those that go on answering.

        Raises:
            ModelAssetError: a new or changed expert cannot be made.
        """
        return await in_own_thread(self._builder().rebuild, registry, self._roster)

    def take(self, registry: Registry, staged: Roster) -> None:
        """Serves what was staged; the adapters that it does without go once no request uses them."""
        before, self._roster, self._registry = self._roster, staged, registry
        for name in set(before.adapters.values()) - set(staged.adapters.values()):
            task = asyncio.create_task(self._retire(name))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def discard(self, staged: Roster) -> None:
        """Lets go what was staged and is not wanted after all."""
        await in_own_thread(self._builder().discard, staged, self._roster)

    async def _retire(self, adapter: str) -> None:
        while self._users[adapter]:
            self._unused.clear()
            await self._unused.wait()
        await in_own_thread(self.engine.unload_adapter, adapter)

    def _builder(self) -> RosterBuilder:
        config = self._config
        remote = self._registry.base_models[self.model_key].engine == "openai"
        return RosterBuilder(
            self.model_key, self.engine, config.adapter_root, config.max_text_tokens, remote=remote
        )

    async def classify(
        self, expert: Expert, request: ExpertRequest, *, deadline: float | None = None, caller: str = ""
    ) -> ExpertAnswer:
        """Answers one request.

        Args:
            expert: one of this model's.
            request: what is asked.
            deadline: seconds of time.monotonic().
            caller: whose request it is; the queue is fair between callers, and between a caller's tasks.

        Raises:
            MissingFieldError: the template needs a field that the request lacks.
            OverloadedError: the queue is full.
            DeadlineError: the time is up.
            NoWorkerError: the expert could not be made.
        """
        started = time.monotonic()
        served = self._roster.served.get(expert)
        if served is None or self._batcher is None:
            reason = self.failures.get(expert, "it is not on this model")
            raise NoWorkerError(f"{expert.task_key}: the expert {expert.name!r} cannot be served: {reason}")
        with self._using(served):
            found = await self._find(served.expert, request, deadline, caller)
        return ExpertAnswer(
            request_id=request.request_id,
            result=found.result,
            confidence=found.confidence,
            probabilities=found.probabilities if request.return_probabilities else None,
            entities=found.entities,
            raw_response=found.raw_response,
            worker_id=self._config.worker_id,
            model_key=self.model_key,
            adapter_name=expert.adapter_name,
            processing_time_ms=(time.monotonic() - started) * 1000,
        )

    async def _find(
        self, expert: TaskExpert, request: ExpertRequest, deadline: float | None, caller: str
    ) -> Finding:
        assert self._batcher is not None  # noqa: S101  checked by the caller
        with self._batcher.place(caller, deadline) as place:
            work = await self._batcher.make(
                place,
                partial(expert.prepare, request),
                task=request.task_key,
                at_least=expert.least_jobs(request.text),
                deadline=deadline,
            )
            if any(job.prompt.cut for job in work.jobs):
                self._tell_cut(request.task_key)
            jobs = [replace(job, wanted=lambda: not place.settled) for job in work.jobs]
            costs = [self.engine.cost(job) for job in jobs]
            kind = "decode" if expert.extracts else "label"
            outcomes = await self._batcher.run(
                place, jobs, costs=costs, task=request.task_key, kind=kind, deadline=deadline
            )
        if expert.extracts:  # of a long text it would keep the event loop from all else
            return await asyncio.to_thread(expert.finish, work, outcomes)
        return expert.finish(work, outcomes)

    def _tell_cut(self, task_key: str) -> None:
        self.cut[task_key] += 1
        if self.cut[task_key] == 1:  # the counter tells of the others
            limit = self._config.max_text_tokens
            logger.warning(
                "%s: a text or field is cut: the model reads at most %d tokens of it", task_key, limit
            )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While a request waits for the model, or is answered by it, `aclose` waits."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            self._unkept.set()

    @contextmanager
    def _using(self, served: Served) -> Iterator[None]:
        """While a request is under way its adapter stays."""
        name = served.adapter or ""
        self._users[name] += 1
        try:
            yield
        finally:
            self._users[name] -= 1
            self._unused.set()

    @property
    def short_of_memory(self) -> bool:
        """Whether an expert could not be made for want of memory."""
        return self._roster.short_of_memory

    @property
    def queue_depth(self) -> int:
        """Jobs that are being made, wait or are being computed."""
        return 0 if self._batcher is None else self._batcher.depth

    @property
    def batches(self) -> SizeTally:
        """How large the batches were."""
        return SizeTally() if self._batcher is None else self._batcher.batches

    async def aclose(self) -> None:
        """Answers what was taken, then gives the memory back."""
        while self._keepers:
            self._unkept.clear()
            await self._unkept.wait()
        if self._batcher is not None:
            await self._batcher.aclose()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        self.unload()

    def unload(self) -> None:
        """Gives the memory back at once, also that of a load that failed.

        Nothing may be under way, and the load's error must be gone: its frames hold what was half loaded.
        """
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        reclaim()

    def _infer(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        return infer_halving(self.engine, jobs)

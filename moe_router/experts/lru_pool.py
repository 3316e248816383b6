"""The pool of monolithic mode: several base models under a memory budget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from moe_router.assets.base_model import ensure_base_model
from moe_router.contracts import ExpertAnswer, ExpertRequest
from moe_router.errors import ModelAssetError, NotReadyError, NoWorkerError
from moe_router.experts.admission import Admission
from moe_router.experts.engines.base import OutOfMemoryError
from moe_router.experts.engines.factory import make_engine
from moe_router.experts.load_failures import LoadFailure, LoadFailures
from moe_router.experts.memory import available_memory, weights_bytes
from moe_router.experts.model_host import MakeEngine, ModelHost, PoolConfig
from moe_router.experts.roster import Roster
from moe_router.own_thread import in_own_thread
from moe_router.registry import BaseModelSpec, Expert, Registry

logger = logging.getLogger(__name__)

MEMORY_SHARE = 0.6
"""Share of the memory free at the first load that base models may take; passes and caches need the rest."""


@dataclass(slots=True)
class _Seat:
    """A model that is wanted: its requests wait for one load."""

    host: ModelHost
    waiting: Admission[None]
    load: asyncio.Task[None] = field(init=False)


class LruModelPool:
    """Several base models under a memory budget; the least recently used goes first.

    Models are loaded one after another, in a thread; loaded ones answer meanwhile, and all requests for a
    loading one wait for the one load. One that cannot be loaded is left alone for a while, so that not every
    request costs the others their place. What a model takes is measured once it is loaded, and before that
    taken from the size of its files. A model goes when no request that came to it is left.

    Args:
        registry: where models and experts are declared.
        config: how to run.
        engine_factory: loads a base model.
        clock: seconds.
    """

    def __init__(
        self,
        registry: Registry,
        config: PoolConfig,
        engine_factory: MakeEngine = make_engine,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._config = config
        self._make_engine = engine_factory
        self._hosts: dict[str, ModelHost] = {}  # the most recently used last
        self._loading: dict[str, _Seat] = {}
        self._failures = LoadFailures(clock)
        self._changing = asyncio.Lock()  # held by whoever loads, evicts or reloads
        self._leaving: dict[asyncio.Task[None], int] = {}  # with the bytes that they still hold
        self._measured: dict[str, int] = {}
        self._needed: dict[str, int] = {}
        """at most, while it is loaded"""
        self._budget = config.memory_budget_bytes
        self._closed = False

    async def classify(
        self, expert: Expert, request: ExpertRequest, *, deadline: float | None = None, caller: str = ""
    ) -> ExpertAnswer:
        """Answers one request, loading its model first where need be.

        Raises:
            NoWorkerError: the model cannot be loaded, or could not a short while ago.
            OverloadedError: as many wait for the load as may wait for the model.
            MoleError: as `ModelHost.classify`.
        """
        if self._closed:
            raise NotReadyError("The experts are draining.")
        key = expert.base_model_key
        if (host := self._hosts.pop(key, None)) is not None:
            self._hosts[key] = host
            with host.kept():
                return await host.classify(expert, request, deadline=deadline, caller=caller)
        seat = self._loading.get(key) or self._begin(key)
        with seat.host.kept():
            await self._loaded(seat, caller)
            return await seat.host.classify(expert, request, deadline=deadline, caller=caller)

    async def _loaded(self, seat: _Seat, caller: str) -> None:
        """Waits for the load, which goes on for the others when one caller leaves, or must make room."""
        place = seat.waiting.enter(caller)
        try:
            await asyncio.wait((seat.load, place.answer), return_when=asyncio.FIRST_COMPLETED)
            await (place.answer if place.settled else seat.load)
        finally:
            seat.waiting.leave(place)
            place.forget()

    def loaded(self) -> tuple[str, ...]:
        """Keys of the models in memory, the least recently used first."""
        return tuple(self._hosts)

    def failures(self) -> Mapping[str, str]:
        """Why models could not be loaded when that was last tried, by key."""
        return self._failures.reasons()

    def may_answer(self, key: str) -> bool:
        """Whether the model is in memory or may be loaded now."""
        return self._failures.left_alone(key) is None

    def queue_depth(self) -> int:
        """Jobs that are being made, wait or are being computed, and requests that wait for their model."""
        waiting = sum(seat.waiting.held for seat in self._loading.values())
        return waiting + sum(host.queue_depth for host in self._hosts.values())

    async def reload(self, registry: Registry) -> None:
        """Serves an edited registry; models in memory whose own entry is the same stay there.

        A model whose entry changed goes once its requests are answered, and is loaded anew when it is wanted.

        Raises:
            ModelAssetError: a new or changed expert of a model in memory cannot be made; all stays as it was.
        """
        async with self._changing:
            staged: list[tuple[ModelHost, Roster]] = []
            try:
                for host in [host for host in self._hosts.values() if host.fits(registry)]:
                    roster = await host.stage(registry)
                    staged.append((host, roster))
            except BaseException:
                for host, roster in staged:
                    await host.discard(roster)
                raise
            for host, roster in staged:
                host.take(registry, roster)
            for key in set(self._hosts) - {host.model_key for host, _ in staged}:
                self._let_go(key)
            before, self._registry = self._registry, registry
            self._failures.clear()
            for key, spec in before.base_models.items():
                if registry.base_models.get(key) != spec:  # also of one that is not in memory now
                    self._measured.pop(key, None)
                    self._needed.pop(key, None)

    async def aclose(self) -> None:
        """Answers what was taken, then gives the memory back."""
        self._closed = True
        await asyncio.gather(*(seat.load for seat in self._loading.values()), return_exceptions=True)
        async with self._changing:
            for key in list(self._hosts):
                self._let_go(key)
            await self._all_left()

    def _begin(self, key: str) -> _Seat:
        if (reason := self._failures.left_alone(key)) is not None:
            raise NoWorkerError(f"The model {key!r} cannot be loaded; it is left alone for a while: {reason}")
        host = ModelHost(self._registry, key, self._config, self._make_engine)
        seat = _Seat(host, Admission(self._config.max_queue))
        self._loading[key] = seat
        seat.load = asyncio.create_task(self._load(key, seat.host))
        seat.load.add_done_callback(lambda _: self._loading.pop(key, None))
        return seat

    async def _load(self, key: str, host: ModelHost) -> None:
        async with self._changing:
            spec = self._registry.base_models.get(key)
            if spec is None:
                raise NoWorkerError(f"The registry no longer has the base model {key!r}.")
            host.declare(self._registry)  # it may have been edited since the request came
            try:
                await self._measure(key, spec)
            except Exception as error:  # noqa: BLE001  whatever keeps its files away
                failure: LoadFailure | None = LoadFailure.of(error, cheap=True)
            else:
                failure = await self._load_within_budget(key, host)
            if failure is not None:
                self._failures.note(key, failure)
                logger.error("the base model %s cannot be loaded: %s", key, failure.reason)
                raise NoWorkerError(f"The model {key!r} cannot be loaded: {failure.reason}")
            self._failures.forget(key)
            self._hosts[key] = host

    async def _measure(self, key: str, spec: BaseModelSpec) -> None:
        """How much there is, and how much the model takes, as far as its files tell."""
        if self._budget is None:
            self._budget = int(await asyncio.to_thread(available_memory) * MEMORY_SHARE)
        if key not in self._measured and spec.engine == "transformers":
            self._measured[key] = await asyncio.to_thread(self._estimate, spec)

    async def _load_within_budget(self, key: str, host: ModelHost) -> LoadFailure | None:
        """Loads a model, or tells why it cannot be."""
        await self._make_room(self._needed.get(key, self._measured.get(key, 0)))
        failure = await in_own_thread(_load_and_warm, host, alone=not self._hosts)
        if failure is not None and failure.kind is OutOfMemoryError and self._hosts:
            logger.warning("the device's memory does not hold the base model %s beside others", key)
            for other in list(self._hosts):
                self._let_go(other)
            await self._all_left()
            failure = await in_own_thread(_load_and_warm, host, alone=True)
        if failure is None:
            self._measured[key] = host.engine.memory_bytes()
            self._needed[key] = host.engine.load_bytes()
            await self._make_room(self._measured[key])
        return failure

    def _estimate(self, spec: BaseModelSpec) -> int:
        from moe_router.experts.engines.loading import itemsize  # brings torch

        return weights_bytes(ensure_base_model(spec.hf_name, self._config.cache_dir), itemsize(spec))

    async def _make_room(self, needed: int) -> None:
        """Lets the least recently used models go until so many bytes fit, or none is left."""
        budget = self._budget or 0
        while self._taken() + needed > budget and (self._hosts or self._leaving):
            if not self._leaving:
                key = next(iter(self._hosts))
                logger.info("the base model %s makes room", key)
                self._let_go(key)
            await self._all_left()

    async def _all_left(self) -> None:
        for fault in await asyncio.gather(*self._leaving, return_exceptions=True):
            if isinstance(fault, Exception):  # no fault of those that stay
                logger.error("a base model did not close well", exc_info=fault)

    def _taken(self) -> int:
        """Bytes of the models in memory, those that still answer their last requests included."""
        return sum(self._measured[key] for key in self._hosts) + sum(self._leaving.values())

    def _let_go(self, key: str) -> None:
        task = asyncio.create_task(self._hosts.pop(key).aclose())
        self._leaving[task] = self._measured[key]
        task.add_done_callback(self._leaving.pop)


def _load_and_warm(host: ModelHost, *, alone: bool) -> LoadFailure | None:
    """Loads a model and its experts; where one finds no room all fail, unless the device is theirs alone.

    Blocking. Of a load that fails nothing is left in memory.
    """
    try:
        host.load()
        try:
            host.warm_up()
        except ModelAssetError:
            if alone or not host.short_of_memory:
                raise
        if host.short_of_memory and not alone:
            raise OutOfMemoryError("Not all experts of the model find room beside others.")
    except Exception as error:  # noqa: BLE001  whatever is wrong with one, the others are served
        failure = LoadFailure.of(error)
    else:
        return None
    host.unload()  # only here is the error gone for certain, whose frames hold what was half loaded
    return failure

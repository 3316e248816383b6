"""The coordinator's life: what is loaded, what is in force, whether it takes requests."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from app.services import factory
from app.services.admission import Admission
from app.services.classification import Classification
from app.services.config_watch import ConfigWatch, Files
from app.services.feedback_reports import FeedbackReports
from app.services.limits import Limits
from app.services.ports import Experts, Gating
from app.services.telemetry.collector import RuntimeCollector, Snapshot
from app.services.telemetry.metrics import Metrics
from app.services.telemetry.stats import Stats
from app.services.waiting import FairGate
from app.settings import Settings
from moe_router.contracts import CoordinatorHealth, MappingInfo, ReadyStatus
from moe_router.errors import MoleError, NotReadyError
from moe_router.registry import Registry

if TYPE_CHECKING:
    from app.services.keyring import Keyring
    from app.services.router_sync import RouterSync
    from app.storage.storage import Storage

logger = logging.getLogger(__name__)

LoadGating = Callable[[Registry, Settings], Gating]
MakeExperts = Callable[[Settings, Metrics], Experts]
COLLECT_AFTER = 20_000
"""Objects more than before, where Python's own default is 700."""
DECISIONS_AT_ONCE = 16
"""More would fill the encoder's next batches with one caller's texts; fewer would make batches too small."""

FEEDBACK_AT_ONCE = 4
"""Of the ten connections to the database."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 60.0
"""Before gating that could not be loaded is tried again; doubled each time."""


class Runtime:
    """One coordinator process."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        load_gating: LoadGating = factory.load_gating,
        make_experts: MakeExperts = factory.make_experts,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._given = settings
        self._load_gating = load_gating
        self._make_experts = make_experts
        self._draining = draining
        self.stats = Stats()
        self.metrics = Metrics(also=self.stats.traffic.request)
        self.metrics.registry.register(RuntimeCollector(self.snapshot))
        self.feedback_reports = FeedbackReports()
        self._gating: Gating | None = None
        self._experts: Experts | None = None
        self._storage: Storage | None = None
        self._router_sync: RouterSync | None = None
        self.keyring: Keyring | None = None
        """the API keys; None before the start"""
        self._stored = asyncio.Event()
        self._watch: ConfigWatch | None = None
        self._loading: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self._wanted = asyncio.Event()
        """An edit came while gating is not loaded."""
        self._service: Classification
        self._in_force: tuple[object, ...] = ()
        """what `_service` was made of"""

    @cached_property
    def settings(self) -> Settings:
        """Read from the environment at the first use, hence not at import."""
        return self._given or Settings()

    @cached_property
    def admission(self) -> Admission:
        """Counts who is in the house."""
        return Admission(self.settings.max_requests, self.settings.max_requests_per_caller)

    @cached_property
    def gate(self) -> FairGate:
        """In front of gating."""
        return FairGate(DECISIONS_AT_ONCE, self.settings.max_requests)

    @cached_property
    def feedback_gate(self) -> FairGate:
        """In front of the database: feedback leaves connections to everything else."""
        return FairGate(FEEDBACK_AT_ONCE, self.settings.max_requests)

    async def start(self) -> None:
        """Begins to load; returns before that is done, so that the process answers at once."""
        settings = self.settings
        self._experts = self._make_experts(settings, self.metrics)
        self._watch = ConfigWatch(settings.registry_file, settings.mapping_file, self._take)
        await self._watch.load()
        # In a thread, while gating loads in another: the database's library takes a quarter of a second.
        self._storage = await asyncio.to_thread(factory.make_storage, settings, self.metrics)
        self._storage.start()
        self.keyring = factory.make_keyring(settings, self._storage)
        self.keyring.start()
        self._router_sync = factory.make_router_sync(settings, self._storage, lambda: self._gating)
        self._router_sync.start()
        self._stored.set()
        self._watch.start()
        await self._experts.start()

    async def aclose(self) -> None:
        """Ends everything."""
        if self._watch is not None:
            await self._watch.aclose()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._router_sync is not None:
            await self._router_sync.aclose()
        if self.keyring is not None:
            await self.keyring.aclose()
        if self._experts is not None:
            await self._experts.aclose()
        if self._gating is not None:
            await self._gating.aclose()
        if self._storage is not None:
            await self._storage.aclose()

    @property
    def status(self) -> ReadyStatus:
        """Ready means gating is loaded and both files are valid, whatever the workers do."""
        if self._draining():
            return "draining"
        if self._gating is not None and self._files() is not None:
            return "ready"
        refused = self._files() is None and self._watch is not None and self._watch.refused is not None
        return "failed" if self._failure is not None or refused else "loading"

    @property
    def experts(self) -> Experts:
        """The experts.

        Raises:
            NotReadyError: nothing is loaded yet.
        """
        if self._experts is None:
            raise self._not_ready()
        return self._experts

    @property
    def storage(self) -> Storage:
        """The database.

        Raises:
            NotReadyError: the process has not started yet.
        """
        if self._storage is None:
            raise self._not_ready()
        return self._storage

    @property
    def router_sync(self) -> RouterSync:
        """Which version of the router is in force.

        Raises:
            NotReadyError: the process has not started yet.
        """
        if self._router_sync is None:
            raise self._not_ready()
        return self._router_sync

    @property
    def registry(self) -> Registry:
        """The registry in force.

        Raises:
            NotReadyError: no valid one was found yet.
        """
        files = self._files()
        if files is None:
            raise self._not_ready()
        return files.registry

    def classification(self) -> Classification:
        """The path of one request, over what is in force now; it keeps that to its end.

        Raises:
            NotReadyError: loading, draining or failed.
        """
        if self._gating is None or self.status != "ready":
            raise self._not_ready()
        gating, experts, registry = self._gating, self.experts, self.registry
        made_of = self._in_force
        if not (made_of and made_of[0] is gating and made_of[1] is experts and made_of[2] is registry):
            self._in_force = (gating, experts, registry)
            self._service = self._classification(gating, experts, registry)
        return self._service

    def _classification(self, gating: Gating, experts: Experts, registry: Registry) -> Classification:
        settings = self.settings
        return Classification(
            gating,
            experts,
            registry,
            gate=self.gate,
            limits=Limits(settings.max_text_chars, settings.max_description_chars),
            default_timeout_s=settings.total_timeout_s,
            metrics=self.metrics,
            stats=self.stats,
            record=self.storage.recorder.record,
        )

    @property
    def left_out(self) -> frozenset[str]:
        """Tasks whose probe cannot be used."""
        return self._gating.left_out if self._gating is not None else frozenset()

    def mapping_info(self) -> MappingInfo:
        """Which mapping is in force, and why the last edit is not."""
        files = self._files()
        if files is None or self._watch is None:
            raise self._not_ready()
        return MappingInfo(loaded_at=files.loaded_at, refused=self._watch.refused)

    @property
    def detail(self) -> str | None:
        """Why it is not ready, or which edit is refused."""
        if self._failure is not None:
            return self._failure
        return self._watch.refused.error if self._watch is not None and self._watch.refused else None

    def health(self) -> CoordinatorHealth:
        """The body of the health endpoints."""
        refused = self._watch.refused if self._watch is not None else None
        workers = self._experts.workers() if self._experts is not None else []
        stored = self._storage is not None and self._storage.database.available
        healthy = sum(worker.state == "healthy" for worker in workers)
        gating = f"ok, without the probe of {', '.join(sorted(self.left_out))}" if self.left_out else "ok"
        unloaded = "failed" if self._failure is not None else "loading"
        return CoordinatorHealth(
            status=self.status,
            mode=self.settings.service_mode,
            detail=self.detail,
            checks={
                "gating": unloaded if self._gating is None else gating,
                "configuration": "ok" if refused is None else f"refused: {refused.error}",
                "database": "ok" if stored else "unavailable",
                "api_keys": "unknown" if self.keyring is None else self.keyring.state,
                "router": "unloaded" if self._router_sync is None else self._router_sync.state,
                "workers": f"{healthy} of {len(workers)} healthy",
            },
        )

    def render_metrics(self) -> bytes:
        """The text that Prometheus scrapes."""
        if self._experts is not None:  # here, as a call that was under way may end after the mapping's edit
            self.metrics.keep_workers({worker.worker_id for worker in self._experts.workers()})
        return self.metrics.render()

    def snapshot(self) -> Snapshot:
        """What is now, for metrics."""
        files = self._files()
        experts = self._experts
        return Snapshot(
            workers=experts.workers() if experts is not None else [],
            requests=self.admission.requests,
            waiting={"gating": self.gate.waiting, **(experts.waiting() if experts is not None else {})},
            encoder=self._gating.counts() if self._gating is not None else None,
            configuration_loaded=files.loaded_at if files is not None else None,
            configuration_refused=self._watch is not None and self._watch.refused is not None,
        )

    def _not_ready(self) -> NotReadyError:
        reason = f": {self.detail}" if self.status == "failed" and self.detail is not None else "."
        return NotReadyError(f"The coordinator is {self.status}{reason}")

    def _files(self) -> Files | None:
        return self._watch.files if self._watch is not None else None

    async def _take(self, files: Files) -> None:
        before = self._files()
        await self.experts.use(files.registry, files.mapping)  # first: what is routed to is there already
        if self._gating is not None:  # also where it was loaded meanwhile, with what was in force
            try:
                await self._gating.use_registry(files.registry)
            except Exception:
                if before is not None:
                    await self.experts.use(before.registry, before.mapping)
                raise
        if self._gating is None:
            self._wanted.set()
            if self._loading is None:
                self._loading = asyncio.create_task(self._load_at_last(files.registry))

    async def _load_at_last(self, registry: Registry) -> None:
        """Loads gating; where that fails, anew after a while or an edit, as the reason may have passed."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._wanted.clear()
            before, self._failure = self._failure, None
            error = await self._load(registry)
            if error is None:
                return
            if isinstance(error, MoleError):
                reason, trace = error.detail, None
            else:
                reason, trace = f"{type(error).__name__}: {error}", error
            if reason != before:
                logger.error("gating cannot be loaded, and is tried again: %s", reason, exc_info=trace)
            del error, trace  # its frames hold what was half loaded
            self._failure = reason
            try:
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            except TimeoutError:
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            if (files := self._files()) is not None:
                registry = files.registry

    async def _load(self, registry: Registry) -> Exception | None:
        """What kept it from being loaded; None where it is."""
        try:
            gating = await asyncio.to_thread(self._load_gating, registry, self.settings)
            await self._stored.wait()
            if self._router_sync is not None:
                await self._router_sync.at_start(gating)
            # Last, and until nothing is new: `_take` tells gating of an edit only once it is in force.
            while (files := self._files()) is not None and files.registry != registry:
                await gating.use_registry(files.registry)
                registry = files.registry
            self._gating = gating
            _spare_collector()
            logger.info("gating is loaded")
        except Exception as error:  # noqa: BLE001  whatever it is, it is told, and tried again
            return error
        return None


def _spare_collector() -> None:
    """What is loaded stays: the collector need not walk through it again and again, tens of ms each time."""
    gc.collect()
    gc.freeze()
    # A request leaves some hundred objects behind, all of them gone with it: nothing that is worth a walk.
    gc.set_threshold(COLLECT_AFTER, 10, 10)

"""Builds what the settings name; the only place that picks an implementation."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.services.experts_http import HttpExperts
from app.services.experts_local import LOCAL, LocalExperts, Pool
from app.services.ports import Experts, Gating
from app.services.telemetry.metrics import Metrics
from app.services.workers.client import WorkerClient
from app.services.workers.fleet import Fleet
from app.services.workers.http import PooledHttp
from app.services.workers.prober import Prober
from app.settings import Settings
from moe_router.registry import Registry

if TYPE_CHECKING:
    from app.services.keyring import Keyring
    from app.services.router_sync import RouterSync
    from app.storage.storage import Storage


def load_gating(registry: Registry, settings: Settings) -> Gating:
    """Loads the gating models; blocking.

    Raises:
        MoleError: a model is missing or does not fit.
    """
    from moe_router.gating.pipeline import GatingConfig, GatingPipeline
    from moe_router.gating.task_router import Policy

    given: dict[str, Any] = {
        "lid_path": settings.lid_path,
        "threads": settings.gating_threads,
        "target_risk": settings.target_risk,
        "policy": Policy(settings.cost_weight, settings.abstain_value, settings.exploration),
    }
    if settings.encoder is not None:
        given["encoder"] = settings.encoder
    config = GatingConfig(cache_dir=settings.cache_dir, model_dir=settings.gating_model_dir, **given)
    return GatingPipeline.load(registry, config)


def make_experts(settings: Settings, metrics: Metrics) -> Experts:
    """Workers over HTTP, or a pool in this process, as SERVICE_MODE says."""
    if settings.service_mode == "monolithic":
        return LocalExperts(lambda registry: _pool(registry, settings), metrics)
    token = settings.worker_token
    client = WorkerClient(PooledHttp(settings.connect_timeout_s), token.get_secret_value() if token else None)
    fleet = Fleet(
        eject_after=settings.eject_after_errors,
        eject_s=settings.eject_s,
        max_in_flight=settings.max_in_flight_per_worker,
    )
    prober = Prober(fleet, client, interval_s=settings.probe_interval_s, timeout_s=settings.connect_timeout_s)
    return HttpExperts(
        fleet,
        client,
        prober,
        metrics,
        attempt_timeout_s=settings.request_timeout_s,
        max_waiting=settings.max_waiting_per_model,
        hedge_after_s=settings.hedge_after_s,
    )


def make_storage(settings: Settings, metrics: Metrics) -> Storage:
    """The database that the settings name; connects to nothing yet. Blocking: loads its library.

    Raises:
        ConfigError: DATABASE_URL is unusable.
    """
    from app.storage.storage import Storage

    return Storage(
        settings.database,
        retention_days=settings.decision_retention_days,
        queue_size=settings.decision_queue,
        count=metrics.count_records,
        job_retention_days=settings.job_retention_days,
    )


def make_router_sync(settings: Settings, storage: Storage, gating: Callable[[], Gating | None]) -> RouterSync:
    """What keeps the router on the live version."""
    from app.services.router_sync import RouterSync

    return RouterSync(storage.router_versions, gating, interval_s=settings.router_poll_s)


def make_keyring(settings: Settings, storage: Storage) -> Keyring:
    """The API keys of the database."""
    from app.services.keyring import Keyring

    return Keyring(storage.api_keys, required=settings.require_api_key)


def _pool(registry: Registry, settings: Settings) -> Pool:
    if settings.hf_cache_path is not None:  # the hub's own library knows no other way, and reads it at import
        os.environ["HF_HUB_CACHE"] = str(settings.hf_cache_path)
    from moe_router.experts.lru_pool import LruModelPool  # torch: only where a model is loaded
    from moe_router.experts.model_host import PoolConfig

    config = PoolConfig(
        adapter_root=settings.adapter_path,
        cache_dir=settings.cache_dir,
        worker_id=LOCAL,
        max_concurrent=settings.max_concurrent,
        max_queue=settings.max_queue,
        max_batch_tokens=settings.max_batch_tokens,
        num_threads=settings.num_threads,
        require_4bit=settings.require_4bit,
        api_key=settings.engine_api_key.get_secret_value() if settings.engine_api_key else None,
        memory_budget_bytes=settings.memory_budget_mib * 2**20 if settings.memory_budget_mib else None,
    )
    return LruModelPool(registry, config)

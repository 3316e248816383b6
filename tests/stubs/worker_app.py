"""The real worker application over a stub pool, as a process: uvicorn tests.stubs.worker_app:app."""

from __future__ import annotations

from expert_worker.main import create_app
from expert_worker.settings import Settings
from moe_router.registry import Registry
from tests.stubs.pool import StubPool


def _pool(registry: Registry, settings: Settings) -> StubPool:
    return StubPool(registry, settings.model_key, settings.worker_id)


app = create_app(build_pool=_pool)

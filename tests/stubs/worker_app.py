"""The real worker application over a stub pool, as a process: uvicorn tests.stubs.worker_app:app."""

from __future__ import annotations

import os

from expert_worker.main import create_app
from expert_worker.settings import Settings
from moe_router.registry import Registry
from tests.stubs.pool import StubPool
from tests.stubs.timed_pool import TimedPool

DEVICE_MS = float(os.environ.get("STUB_DEVICE_MS", "0"))


def _pool(registry: Registry, settings: Settings) -> StubPool:
    if DEVICE_MS:
        return TimedPool(registry, settings, DEVICE_MS / 1000)
    return StubPool(registry, settings.model_key, settings.worker_id)


app = create_app(build_pool=_pool)

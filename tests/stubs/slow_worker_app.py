"""The real worker application over a stub pool that takes STUB_ITEM_MS milliseconds an item, as a process."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from expert_worker.main import create_app
from expert_worker.settings import Settings
from moe_router.contracts import ExpertAnswer, ExpertRequest
from moe_router.registry import Expert, Registry
from tests.stubs.pool import StubPool

ITEM_MS = float(os.environ.get("STUB_ITEM_MS", "0"))


class SlowPool(StubPool):
    async def classify(self, expert: Expert, request: ExpertRequest, **given: Any) -> ExpertAnswer:
        await asyncio.sleep(ITEM_MS / 1000)
        return await super().classify(expert, request, **given)


def _pool(registry: Registry, settings: Settings) -> StubPool:
    return SlowPool(registry, settings.model_key, settings.worker_id)


app = create_app(build_pool=_pool)

"""A stub pool whose device takes its time: the product's own batcher in front of a sleep."""

from __future__ import annotations

import time
from collections.abc import Sequence

from expert_worker.settings import Settings
from moe_router.contracts import ExpertAnswer, ExpertRequest
from moe_router.experts.batcher import Batcher
from moe_router.registry import Expert, Registry
from moe_router.tally import SizeTally
from tests.stubs.pool import StubPool

BATCH = 4


class TimedPool(StubPool):
    def __init__(self, registry: Registry, settings: Settings, seconds: float) -> None:
        super().__init__(registry, settings.model_key, settings.worker_id)

        def run(jobs: Sequence[ExpertRequest]) -> list[ExpertRequest]:
            time.sleep(seconds)
            return list(jobs)

        self.batcher: Batcher[ExpertRequest, ExpertRequest] = Batcher(
            run, max_batch_cost=BATCH, max_queue=settings.max_queue, max_in_flight=settings.max_concurrent
        )

    async def classify(
        self, expert: Expert, request: ExpertRequest, *, deadline: float | None = None, caller: str = ""
    ) -> ExpertAnswer:
        await self.batcher.submit(request, cost=1, caller=caller, task=expert.task_key, deadline=deadline)
        return self._answer(expert, request)

    def queue_depth(self) -> int:
        return self.batcher.depth

    def batches(self) -> SizeTally:
        return self.batcher.batches

    async def aclose(self) -> None:
        await self.batcher.aclose()

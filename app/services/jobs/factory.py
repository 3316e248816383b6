"""Puts the parts of jobs together, for as long as the coordinator runs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Counter

from app.services.jobs.desk import JobDesk
from app.services.jobs.runner import Executor, JobRunner, Pace
from app.services.runtime import Runtime


@asynccontextmanager
async def working(runtime: Runtime, executor: Executor) -> AsyncIterator[JobDesk]:
    """Works jobs off while the block runs, and yields the desk that takes them.

    Args:
        runtime: a coordinator that was started.
        executor: runs an item.
    """
    from app.storage.job_leases import JobLeases  # the runtime has loaded the database's library by now

    settings = runtime.settings
    outcomes = Counter(
        "mole_job_items_total", "Attempts at items of jobs.", ["outcome"], registry=runtime.metrics.registry
    )
    leases = JobLeases(runtime.storage.database, holder=uuid.uuid4().hex, lease_s=settings.job_lease_s)

    def interactive() -> int:
        """Requests whose callers wait, without the items of jobs and the uploads."""
        return max(runtime.admission.requests - runner.running - desk.receiving, 0)

    runner = JobRunner(
        leases,
        executor,
        Pace(settings.job_concurrency, settings.job_max_attempts, settings.job_lease_s),
        ready=lambda: runtime.status == "ready",
        interactive=interactive,
        count=lambda kind: outcomes.labels(kind).inc(),
    )
    desk = JobDesk(
        runtime.storage, max_unfinished=settings.job_max_unfinished, wake=runner.wake, stop=runner.stop
    )
    runner.start()
    try:
        yield desk
    finally:
        await asyncio.gather(runner.aclose(), desk.aclose())  # at once: a database that hangs holds both up

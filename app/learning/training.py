"""One run of the learner: feedback out of the database, a judged version into it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from app.services import audit, factory
from app.services.router_sync import RouterSync
from app.settings import Settings
from moe_router.errors import ModelAssetError, VersionConflictError
from moe_router.gating.versions import pack
from moe_router.registry import load_registry

if TYPE_CHECKING:
    from app.storage.storage import Storage
    from moe_router.gating.pipeline import GatingPipeline
    from moe_router.training.feedback.held_out import Run
    from moe_router.training.feedback.learner import Candidate
    from moe_router.training.feedback.memory import Memory
    from moe_router.training.feedback.replay import Replay

Report = Callable[[str, float], None]
PER_CALLER = 500
RUNS = 1000
"""So many versions are looked at for what they held out; decisions are forgotten long before."""


@dataclass(frozen=True, slots=True)
class TrainRun:
    """What of the feedback counts, and what happens to the candidate."""

    data: Path | None
    """folder of the datasets; None for the project's own texts alone"""
    per_caller: int = PER_CALLER
    """newest rows of one caller that count"""
    limit: int = 20_000
    """newest rows that count at all"""
    dry_run: bool = False
    """store nothing"""
    promote: bool = True
    """let a candidate that passes go live"""


async def train(storage: Storage, settings: Settings, run: TrainRun, report: Report) -> dict[str, Any]:
    """Trains, judges and stores a candidate, and promotes it where it passes.

    Returns:
        For JSON: `outcome` (nothing, candidate, promoted or rejected), the version's `id` and its metrics;
        of a candidate that passed, `not_promoted` says why it is not live.

    Raises:
        ConfigError: the registry is invalid.
        ModelAssetError: a model is missing, or the live version does not fit the encoder.
        StorageError: the database cannot be used now.
    """
    registry = await asyncio.to_thread(load_registry, settings.registry_file)
    gating = cast("GatingPipeline", await asyncio.to_thread(factory.load_gating, registry, settings))
    try:
        sync = RouterSync(storage.router_versions, lambda: gating, interval_s=1.0)
        await sync.check(gating)
        if sync.refused is not None and not sync.outdated:
            raise ModelAssetError(
                f"version {sync.refused} is live but does not fit: `mole router rollback` first"
            )
        encoder = gating.encoder.encoder
        replay = await storage.replay.replay(
            encoder=encoder.identity, hidden=encoder.hidden, limit=run.limit, per_caller=run.per_caller
        )
        runs = await _runs(storage)
        memory = await asyncio.to_thread(_memory, gating, settings.cache_dir, run.data, report)
        report("learning", 0.9)
        found = await asyncio.to_thread(_learn, gating, replay, memory, runs)
        if found is None:
            return {"outcome": "nothing", "rows": len(replay)}
        return await _store(storage, found, gating.shipped_digest, sync, run)
    finally:
        await gating.aclose()


def _memory(gating: GatingPipeline, cache: Path, data: Path | None, report: Report) -> Memory:
    from moe_router.training.embedded import Embedded
    from moe_router.training.feedback.memory import remember
    from moe_router.training.feedback.remembered import RememberingEncoder

    encoder = RememberingEncoder(gating.encoder.encoder, cache)
    memory = remember(data, Embedded(encoder, report))
    encoder.save()
    return memory


async def _runs(storage: Storage) -> list[Run]:
    """The runs before this one, rejected ones included: an operator may still promote what they made."""
    from moe_router.training.feedback.learner import HELD_OUT_BY

    versions = await storage.router_versions.list(RUNS)
    return [(version.created_at, version.metrics.get(HELD_OUT_BY)) for version in versions]


def _learn(gating: GatingPipeline, replay: Replay, memory: Memory, runs: Sequence[Run]) -> Candidate | None:
    from moe_router.training.feedback.learner import LearnRun, Serving, learn

    serving = Serving(
        gating.learned, gating.shipped, gating.heads.domains, gating.words, gating.router_of,
        gating.config.target_risk,
    )  # fmt: skip
    return learn(replay, serving, memory, LearnRun(), runs)


async def _store(
    storage: Storage, found: Candidate, shipped: str, sync: RouterSync, run: TrainRun
) -> dict[str, Any]:
    passed = found.verdict.passed
    if run.dry_run:
        return {"outcome": "candidate" if passed else "rejected", "id": None, **found.metrics}
    blob, meta = pack(found.weights, shipped)
    version = await storage.router_versions.add(
        blob,
        meta=meta,
        metrics=found.metrics,
        parent_id=sync.version,
        at=time.time(),
        state="candidate" if passed else "rejected",
    )
    outcome = "candidate" if passed else "rejected"
    if passed and run.promote:
        try:
            # Training takes minutes: what an operator has promoted or taken back meanwhile stands.
            live = sync.refused if sync.outdated else sync.version
            await storage.router_versions.promote(version, at=time.time(), over=live)
        except VersionConflictError as error:
            return {"outcome": outcome, "id": version, "not_promoted": error.detail, **found.metrics}
        audit.record("router.promoted", actor=audit.command_actor(), version=version)
        outcome = "promoted"
    return {"outcome": outcome, "id": version, **found.metrics}

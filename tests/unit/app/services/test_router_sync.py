"""The coordinator follows the live version; what does not fit is refused, and the old stays."""

from __future__ import annotations

import asyncio
from typing import Any

from app.services.router_sync import RETRY_S, RouterSync
from app.storage.router_versions import VersionInfo
from moe_router.errors import ModelAssetError, StorageError
from moe_router.gating.versions import RouterWeights, pack
from tests.unit.moe_router.gating.made import head_weights, q_weights

LEARNED = RouterWeights(head_weights(), q_weights())


class Table:
    def __init__(self) -> None:
        self.id: int | None = None
        self.gone = False
        self.beside: str | None = None
        self.read: list[int] = []

    async def live(self) -> VersionInfo | None:
        if self.gone:
            raise StorageError("gone")
        if self.id is None:
            return None
        return VersionInfo(self.id, "live", 0.0, 0.0, None, pack(LEARNED, self.beside)[1], {})

    async def weights(self, version_id: int) -> bytes:
        self.read.append(version_id)
        return pack(LEARNED)[0]


class Gating:
    def __init__(self) -> None:
        self.shipped = object()
        self.shipped_digest = "ours"
        self.used: list[tuple[Any, int | None]] = []
        self.taken = asyncio.Event()
        self.fits = True

    async def use_router(self, weights: Any, version: int | None) -> None:
        if not self.fits:
            raise ModelAssetError("made for another encoder")
        self.used.append((weights, version))
        self.taken.set()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(table: Table, gating: Gating | None, clock: Clock | None = None) -> RouterSync:
    return RouterSync(table, lambda: gating, interval_s=0.001, clock=clock or Clock())  # type: ignore[arg-type,return-value]


async def test_it_takes_a_version_once_and_the_shipped_weights_after_a_rollback():
    table, gating = Table(), Gating()
    sync = made(table, gating)
    await sync.check(gating)  # type: ignore[arg-type]
    assert (gating.used, sync.state) == ([], "shipped weights")
    table.id = 3
    for _ in range(2):
        await sync.check(gating)  # type: ignore[arg-type]
    assert [version for _, version in gating.used] == [3]
    assert gating.used[0][0].tasks.meta == LEARNED.tasks.meta
    assert sync.state == "version 3"
    table.id = None
    await sync.check(gating)  # type: ignore[arg-type]
    assert gating.used[-1] == (gating.shipped, None)


async def test_a_version_that_does_not_fit_is_refused_once_and_the_old_one_stays(caplog):
    table, gating = Table(), Gating()
    sync = made(table, gating)
    table.id = 3
    await sync.check(gating)  # type: ignore[arg-type]
    table.id, gating.fits = 4, False
    for _ in range(3):
        await sync.check(gating)  # type: ignore[arg-type]
    assert table.read == [3, 4]
    assert sync.state == "version 3; version 4 is refused"
    assert caplog.text.count("is refused, the old one stays: made for another encoder") == 1
    table.id, gating.fits = 5, True
    await sync.check(gating)  # type: ignore[arg-type]
    assert sync.state == "version 5"


async def test_a_version_that_was_learned_from_other_shipped_weights_does_not_hide_the_new_ones(caplog):
    table, gating = Table(), Gating()
    sync = made(table, gating)
    table.id, table.beside = 3, "others"
    for _ in range(3):
        await sync.check(gating)  # type: ignore[arg-type]
    assert (gating.used, table.read, sync.refused, sync.outdated) == ([], [], 3, True)
    told = "version 3 is refused: learned from other shipped weights than those in use"
    assert sync.state == f"shipped weights; {told}"
    assert (
        caplog.text.count("version 3 is refused, the shipped weights are in force: learned from other") == 1
    )
    table.id, table.beside = 4, "ours"
    await sync.check(gating)  # type: ignore[arg-type]
    assert (sync.state, sync.outdated) == ("version 4", False)


async def test_a_rollback_to_a_version_of_other_shipped_weights_ends_the_one_taken_back():
    table, gating = Table(), Gating()
    sync = made(table, gating)
    table.id = 5
    await sync.check(gating)  # type: ignore[arg-type]
    assert sync.state == "version 5"
    table.id, table.beside = 3, "others"
    for _ in range(2):
        await sync.check(gating)  # type: ignore[arg-type]
    assert gating.used[1:] == [(gating.shipped, None)]  # as a process that starts now
    assert (sync.version, sync.refused, sync.outdated) == (None, 3, True)
    table.id, table.beside = 6, "ours"
    await sync.check(gating)  # type: ignore[arg-type]
    assert sync.state == "version 6"


async def test_what_was_refused_is_tried_again_after_a_pause_and_logged_once(caplog):
    table, gating, clock = Table(), Gating(), Clock()
    sync = made(table, gating, clock)
    table.id, gating.fits = 4, False
    for _ in range(3):
        clock.now += RETRY_S
        await sync.check(gating)  # type: ignore[arg-type]
    assert (table.read, sync.refused) == ([4, 4, 4], 4)
    assert caplog.text.count("is refused") == 1
    gating.fits = True
    clock.now += RETRY_S / 2
    await sync.check(gating)  # type: ignore[arg-type]
    assert sync.refused == 4
    clock.now += RETRY_S
    await sync.check(gating)  # type: ignore[arg-type]
    assert (sync.state, sync.refused) == ("version 4", None)


async def test_health_tells_that_the_shipped_weights_are_refused(caplog):
    table, gating, clock = Table(), Gating(), Clock()
    sync = made(table, gating, clock)
    table.id = 3
    await sync.check(gating)  # type: ignore[arg-type]
    table.id, gating.fits = None, False
    for _ in range(3):
        await sync.check(gating)  # type: ignore[arg-type]
    assert sync.state == "version 3; shipped weights are refused"
    assert caplog.text.count("shipped weights are refused") == 1
    gating.fits = True
    clock.now += RETRY_S
    await sync.check(gating)  # type: ignore[arg-type]
    assert sync.state == "shipped weights"


async def test_it_looks_again_after_the_database_was_gone():
    table, gating = Table(), Gating()
    table.id, table.gone = 3, True
    sync = made(table, gating)
    await sync.at_start(gating)  # type: ignore[arg-type]
    assert gating.used == []
    sync.start()
    table.gone = False
    async with asyncio.timeout(5):
        await gating.taken.wait()
    await sync.aclose()
    assert gating.used[0][1] == 3

"""Keeps the router on the version that the database says is live."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from app.services.ports import Gating
from app.storage.router_versions import VersionInfo
from moe_router.errors import ModelAssetError, StorageError, UnknownVersionError
from moe_router.gating.versions import learned_beside, unpack

logger = logging.getLogger(__name__)

AT_START_S = 2.0
"""A database that hangs keeps gating's first answer waiting no longer than this."""
RETRY_S = 60.0
"""What was refused is tried again after so long: it may have been a passing fault."""
OUTDATED = "learned from other shipped weights than those in use"


class Versions(Protocol):
    """The table `router_versions`."""

    async def live(self) -> VersionInfo | None:
        """The version in force; None where the shipped weights are."""

    async def weights(self, version_id: int) -> bytes:
        """The weights of a version."""


class RouterSync:
    """Looks regularly which version is live; where one does not fit, the old stays."""

    def __init__(
        self,
        versions: Versions,
        gating: Callable[[], Gating | None],
        *,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._versions = versions
        self._gating = gating
        self._interval_s = interval_s
        self._clock = clock
        self._retry_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.version: int | None = None
        """in force; None: the shipped weights"""
        self.refused: int | None = None
        """live in the database, but not usable here"""
        self.outdated = False
        """whether that is because it was learned from other shipped weights, and would hide the new ones"""
        self.shipped_refused = False
        """whether the shipped weights are wanted, but cannot be used"""

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def at_start(self, gating: Gating) -> None:
        """Gives gating the live version before its first request, if the database answers soon."""
        try:
            async with asyncio.timeout(AT_START_S):
                await self.check(gating)
        except (TimeoutError, StorageError):
            logger.warning("the router begins with the shipped weights: the database does not answer")

    async def check(self, gating: Gating) -> None:
        """Takes the live version where it is another one than in force.

        Raises:
            StorageError: the database cannot be used now.
        """
        live = await self._versions.live()
        wanted = live.id if live is not None else None
        if wanted == self.version:
            self.refused, self.shipped_refused, self.outdated = None, False, False
            return
        again = self.shipped_refused if wanted is None else wanted == self.refused
        if again and self._clock() < self._retry_at:
            return
        self.outdated = live is not None and not learned_beside(live.meta, gating.shipped_digest)
        try:
            if live is None:
                await gating.use_router(gating.shipped, None)
            elif self.outdated:
                if self.version is not None:  # what was in force is not wanted any more
                    await gating.use_router(gating.shipped, None)
                    self.version = None
                raise ModelAssetError(OUTDATED)
            else:
                blob = await self._versions.weights(live.id)
                weights = await asyncio.to_thread(unpack, blob, live.meta)
                await gating.use_router(weights, live.id)
        except (ModelAssetError, UnknownVersionError) as error:
            self.refused, self.shipped_refused = wanted, wanted is None
            self._retry_at = self._clock() + RETRY_S
            if not again:
                stays = "the shipped weights are in force" if self.outdated else "the old one stays"
                logger.error("the router's %s refused, %s: %s", _told(wanted), stays, error.detail)
            return
        self.version, self.refused, self.shipped_refused = wanted, None, False
        logger.info("the router's %s in force", _told(wanted))

    @property
    def state(self) -> str:
        """For the health body."""
        own = "shipped weights" if self.version is None else f"version {self.version}"
        if self.refused is None and not self.shipped_refused:
            return own
        return f"{own}; {_told(self.refused)} refused{f': {OUTDATED}' if self.outdated else ''}"

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            gating = self._gating()
            if gating is None:
                continue
            try:
                await self.check(gating)
            except StorageError:  # logged where it arose; the next round tries again
                pass
            except Exception:
                logger.exception("the router's version cannot be looked up")


def _told(version: int | None) -> str:
    return "shipped weights are" if version is None else f"version {version} is"

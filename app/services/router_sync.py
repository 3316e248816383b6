"""Keeps the router on the version that the database says is live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from app.services.ports import Gating
from app.storage.router_versions import VersionInfo
from moe_router.errors import ModelAssetError, StorageError, UnknownVersionError
from moe_router.gating.versions import unpack

logger = logging.getLogger(__name__)

AT_START_S = 2.0
"""A database that hangs keeps gating's first answer waiting no longer than this."""


class Versions(Protocol):
    """The table `router_versions`."""

    async def live(self) -> VersionInfo | None:
        """The version in force; None where the shipped weights are."""

    async def weights(self, version_id: int) -> bytes:
        """The weights of a version."""


class RouterSync:
    """Looks regularly which version is live; one that does not fit is refused once, and the old stays."""

    def __init__(self, versions: Versions, gating: Callable[[], Gating | None], *, interval_s: float) -> None:
        self._versions = versions
        self._gating = gating
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None
        self.version: int | None = None
        """in force; None: the shipped weights"""
        self.refused: int | None = None
        """live in the database, but not usable here"""

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
            self.refused = None
            return
        if wanted is not None and wanted == self.refused:
            return
        try:
            if live is None:
                await gating.use_router(gating.shipped, None)
            else:
                blob = await self._versions.weights(live.id)
                weights = await asyncio.to_thread(unpack, blob, live.meta)
                await gating.use_router(weights, live.id)
        except (ModelAssetError, UnknownVersionError) as error:
            self.refused = wanted
            logger.error("the router's version %s is refused, the old one stays: %s", wanted, error.detail)
            return
        self.version, self.refused = wanted, None
        logger.info("the router's version %s is in force", "of the package" if wanted is None else wanted)

    @property
    def state(self) -> str:
        """For the health body."""
        own = "shipped weights" if self.version is None else f"version {self.version}"
        return own if self.refused is None else f"{own}; version {self.refused} is refused"

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

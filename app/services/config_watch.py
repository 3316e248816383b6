"""Watches the registry and the mapping; a valid edit is taken, an invalid one refused and told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from watchfiles import awatch

from moe_router.contracts import RefusedEdit
from moe_router.errors import ConfigError, MoleError
from moe_router.mapping import WorkerMapping, load_mapping
from moe_router.registry import Registry, load_registry

logger = logging.getLogger(__name__)

LOOK_EVERY_MS = 1000
"""Files are looked at this often even without an event: some mounts send none."""
DEBOUNCE_MS = 100
Signature = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Files:
    """The two files in force."""

    registry: Registry
    mapping: WorkerMapping
    loaded_at: str


class ConfigWatch:
    """Holds the last good pair; an edit of one file is judged together with the other."""

    def __init__(
        self, registry_file: Path, mapping_file: Path, taken: Callable[[Files], Awaitable[None]]
    ) -> None:
        self._registry_file = registry_file
        self._mapping_file = mapping_file
        self._taken = taken
        self.files: Files | None = None
        self.refused: RefusedEdit | None = None
        self._seen: tuple[Signature, Signature] | None = None
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Takes the files as they are, or notes why they are refused; never raises for their content."""
        self._seen = self._signatures()
        try:
            registry = await asyncio.to_thread(load_registry, self._registry_file)
            mapping = await asyncio.to_thread(load_mapping, self._mapping_file)
        except ConfigError as error:
            self._refuse(error.detail)
            return
        if self.files is None or (registry, mapping) != (self.files.registry, self.files.mapping):
            files = Files(registry, mapping, _now())
            try:
                await self._taken(files)
            except MoleError as error:
                self._refuse(error.detail)
                return
            self.files = files
            logger.info("the configuration of %s is in force", files.loaded_at)
        self.refused = None

    def _refuse(self, reason: str) -> None:
        self.refused = RefusedEdit(at=_now(), error=reason)
        logger.error("the configuration is refused: %s", reason)

    def start(self) -> None:
        """Begins to watch."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stops watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._watch()
            except Exception:
                logger.exception("watching the configuration failed")
            await asyncio.sleep(LOOK_EVERY_MS / 1000)  # a folder that is missing may come back

    async def _watch(self) -> None:
        # The folders, not the files: an editor replaces a file by renaming another over it.
        folders = {path.parent for path in (self._registry_file, self._mapping_file)}
        async for _changes in awatch(
            *folders,
            recursive=False,
            step=DEBOUNCE_MS // 2,
            debounce=DEBOUNCE_MS,
            rust_timeout=LOOK_EVERY_MS,
            yield_on_timeout=True,
        ):
            if self._signatures() != self._seen:
                await self.load()

    def _signatures(self) -> tuple[Signature, Signature]:
        return _signature(self._registry_file), _signature(self._mapping_file)


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""Watches the registry and the mapping; a valid edit is taken, an invalid one refused and told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from moe_router.contracts import RefusedEdit
from moe_router.errors import MoleError
from moe_router.file_watch import FileWatch
from moe_router.mapping import WorkerMapping, load_mapping
from moe_router.registry import Registry, load_registry

logger = logging.getLogger(__name__)


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
        self._watch = FileWatch((registry_file, mapping_file), self.load)

    async def load(self) -> None:
        """Takes the files as they are, or notes why they are refused; never raises for their content."""
        self._watch.note()
        try:
            await self._load()
        except MoleError as error:
            self._refuse(error.detail)
        except Exception as error:  # of ours: told like a mistake in the files, or nobody would know of it
            logger.exception("the configuration cannot be taken")
            self._refuse(f"{type(error).__name__}: {error}")
        else:
            self.refused = None

    async def _load(self) -> None:
        registry = await asyncio.to_thread(load_registry, self._registry_file)
        mapping = await asyncio.to_thread(load_mapping, self._mapping_file)
        # Also where they say the same: what they name may be there now, or be another.
        files = Files(registry, mapping, _now())
        await self._taken(files)
        self.files = files
        logger.info("the configuration of %s is in force", files.loaded_at)

    def _refuse(self, reason: str) -> None:
        self.refused = RefusedEdit(at=_now(), error=reason)
        logger.error("the configuration is refused: %s", reason)

    def start(self) -> None:
        """Begins to watch."""
        self._watch.start()

    async def aclose(self) -> None:
        """Stops watching."""
        await self._watch.aclose()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

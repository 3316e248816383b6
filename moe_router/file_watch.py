"""Tells of changed files within two seconds, also on mounts that send no events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from watchfiles import awatch

logger = logging.getLogger(__name__)

LOOK_EVERY_MS = 1000
"""Files are looked at this often even without an event."""
DEBOUNCE_MS = 100

Signature = tuple[int, int, int] | None


class FileWatch:
    """Watches a few files and calls back when one of them is another than before.

    Args:
        files: their paths; they need not exist.
        changed: awaited after a change, one call at a time. What it raises is logged.
    """

    def __init__(self, files: Sequence[Path], changed: Callable[[], Awaitable[None]]) -> None:
        self._files = tuple(files)
        self._folders = {file.parent for file in files}
        self._changed = changed
        self._seen: tuple[Signature, ...] = ()
        self._task: asyncio.Task[None] | None = None

    def note(self) -> None:
        """Takes the files as they are now for known."""
        self._seen = self._signatures()

    def start(self) -> None:
        """Begins to watch."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stops watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        told: list[Path] = []
        while True:
            missing = sorted(folder for folder in self._folders if not folder.is_dir())
            if missing and missing != told:
                logger.warning("no changes are seen until there is %s", " and ".join(map(str, missing)))
            told = missing
            try:
                if not missing:
                    await self._watch()
            except Exception:
                logger.exception("watching %s failed", ", ".join(file.name for file in self._files))
            await asyncio.sleep(LOOK_EVERY_MS / 1000)  # a folder that is missing may come back

    async def _watch(self) -> None:
        # The folders, not the files: an editor replaces a file by renaming another over it.
        async for _changes in awatch(
            *self._folders,
            recursive=False,
            step=DEBOUNCE_MS // 2,
            debounce=DEBOUNCE_MS,
            rust_timeout=LOOK_EVERY_MS,
            yield_on_timeout=True,
        ):
            if self._signatures() != self._seen:
                self.note()
                await self._changed()

    def _signatures(self) -> tuple[Signature, ...]:
        return tuple(_signature(file) for file in self._files)


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size

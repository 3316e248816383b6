"""The audit log: who changed what, as JSON lines; never a key, a token or a caller's text."""

from __future__ import annotations

import getpass
import logging
import os
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path

import orjson

logger = logging.getLogger("mole.audit")


class _OwnersFile(WatchedFileHandler):
    """Goes on in a new file after a rotation; only the owner may read the one and the other."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=_for_the_owner)


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def configure(file: Path | None) -> None:
    """Sends the lines to a file, which only its owner may read, or to standard error; called at start.

    Raises:
        OSError: the file cannot be written.
    """
    handler: logging.Handler = logging.StreamHandler()
    if file is not None:
        handler = _OwnersFile(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    for old in logger.handlers:
        old.close()
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False  # each line is an object by itself, whatever form the other lines have


def record(event: str, *, actor: str, **details: object) -> None:
    """Writes a line.

    Args:
        event: what was done, such as `key.created`.
        actor: who did it: `key:` and its id, or `cli:` and the user of the machine.
        **details: what it was done to; values that JSON knows.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": at, "logger": logger.name, "event": event, "actor": actor, **details}
    logger.info("%s", orjson.dumps(line).decode())


def command_actor() -> str:
    """Who runs a command on this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name, as in containers
        return f"cli:uid-{os.getuid()}"

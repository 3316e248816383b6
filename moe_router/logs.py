"""Logging of both services: one format, and no line for each probe of its health."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
PROBED = ("/api/v1/health", "/metrics")
CHATTY = ("httpx", "watchfiles")


class _NoProbes(logging.Filter):
    """Drops uvicorn's lines about answers to probes; they come every second."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is kept; its arguments are (client, method, path, version, status)."""
        arguments = record.args
        if not isinstance(arguments, tuple) or len(arguments) < 3:
            return True
        return not str(arguments[2]).startswith(PROBED)


def configure() -> None:
    """Called at start; leaves a configuration that is there already as it is."""
    access = logging.getLogger("uvicorn.access")
    if not any(isinstance(known, _NoProbes) for known in access.filters):
        access.addFilter(_NoProbes())
    if logging.getLogger().handlers:
        return
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)

"""Logging of both services: one format, request ids, and no line for each probe of their health."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
PROBED = ("/api/v1/health", "/metrics")
CHATTY = ("httpx", "watchfiles")
UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access")
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that this task serves."""


class _NoProbes(logging.Filter):
    """Drops uvicorn's lines about answers to probes; they come every second."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is kept; its arguments are (client, method, path, version, status)."""
        arguments = record.args
        if not isinstance(arguments, tuple) or len(arguments) < 3:
            return True
        return not str(arguments[2]).startswith(PROBED)


class _Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message, request_id, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        found = request_id.get()
        if found is not None:
            told["request_id"] = found
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def configure(log_format: LogFormat = "text") -> None:
    """Called at start; as text it leaves a configuration that is there already as it is."""
    access = logging.getLogger("uvicorn.access")
    if not any(isinstance(known, _NoProbes) for known in access.filters):
        access.addFilter(_NoProbes())
    root = logging.getLogger()
    if log_format == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(_Json())
        root.handlers = [handler]
        root.setLevel(logging.INFO)
        for name in UVICORN:  # their lines go the same way
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
    elif root.handlers:
        return
    else:
        logging.basicConfig(level=logging.INFO, format=FORMAT)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)

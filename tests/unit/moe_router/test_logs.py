from __future__ import annotations

import logging

import pytest

from moe_router import logs


@pytest.mark.parametrize(
    ("path", "kept"), [("/api/v1/health/ready", False), ("/metrics", False), ("/api/v1/classify", True)]
)
def test_probes_leave_no_line(path: str, kept: bool) -> None:
    logs.configure()
    arguments = ("127.0.0.1:1", "GET", path, "1.1", 200)
    record = logging.LogRecord(
        "uvicorn.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', arguments, None
    )
    assert bool(logging.getLogger("uvicorn.access").filter(record)) == kept


def test_other_lines_are_kept() -> None:
    logs.configure()
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "hello", None, None)
    assert logging.getLogger("uvicorn.access").filter(record)

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

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


@pytest.fixture
def own_logging() -> Iterator[None]:
    """What a test does to the loggers of the process is undone."""
    names = [None, *logs.UVICORN]
    kept = [
        (logging.getLogger(n), logging.getLogger(n).handlers[:], logging.getLogger(n).level) for n in names
    ]
    yield
    for logger, handlers, level in kept:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.usefixtures("own_logging")
def test_a_line_of_json_carries_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    token = logs.request_id.set("id-1")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("mole.x").exception("it %s", "broke\nhere")
    finally:
        logs.request_id.reset(token)
    logging.getLogger("uvicorn.access").info("%s", "plain")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("error", "mole.x", "it broke\nhere")
    assert first["request_id"] == "id-1"
    assert "ValueError: why" in first["exception"]
    assert second["message"] == "plain"
    assert "request_id" not in second

"""What was acknowledged is there after the process was killed."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stubs import files
from tests.stubs.processes import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path)
    yield found
    found.stop()


def test_acknowledged_feedback_survives_a_kill(stage: Stage, tmp_path: Path) -> None:
    worker = stage.faulty()
    files.write(tmp_path, files.mapping(worker.url))
    coordinator = stage.coordinator()
    coordinator.wait_for("/api/v1/health/ready")
    with httpx.Client(base_url=coordinator.url + "/api/v1", trust_env=False, timeout=30) as client:
        for i in range(5):
            answer = client.post("/classify", json={"text": "x"}, headers={"X-Request-ID": f"r-{i}"})
            assert answer.status_code == 200, answer.text
        for i in range(5):
            assert client.post("/feedback", json={"request_id": f"r-{i}", "score": i / 4}).status_code == 202
    coordinator.send(signal.SIGKILL)
    coordinator.wait_end()
    connection = sqlite3.connect(tmp_path / "state" / "coordinator.sqlite3")
    query = "SELECT f.request_id, f.score FROM feedback f JOIN decisions d ON d.id = f.decision_id ORDER BY 1"
    assert connection.execute(query).fetchall() == [(f"r-{i}", i / 4) for i in range(5)]
    connection.close()

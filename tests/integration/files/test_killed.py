"""A file of 5,000 rows, killed twice: every row once, in order; real services, a real command."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stubs import files
from tests.stubs.processes import PATIENCE_S, Stage

ROWS = 5000


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.stop()


def start(source: Path, target: Path, url: str) -> subprocess.Popen[bytes]:
    command = ["classify-file", str(source), str(target), "--task", files.SENTIMENT, "--url", url, "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "mole.cli.main", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def certain(target: Path) -> int:
    """Rows that the journal knows."""
    try:
        return int(json.loads(target.with_name(target.name + ".part.json").read_text())["rows"])
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_row_once_and_in_order(stage: Stage, tmp_path: Path, suffix: str):
    worker = stage.worker(STUB_DEVICE_MS="1")
    files.write(tmp_path, files.mapping(worker.url))
    coordinator = stage.coordinator()
    worker.wait_for("/api/v1/health/ready")
    coordinator.wait_for("/api/v1/health/ready")
    source, target = tmp_path / "in.csv", tmp_path / f"out{suffix}"
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "text"])
        writer.writerows([i, f'{i} said "hello,\nworld" – {"ü" * (i % 50)}'] for i in range(ROWS))
    for share in (1, 3):
        run = start(source, target, coordinator.url)
        end = time.monotonic() + PATIENCE_S
        while certain(target) < share * ROWS // 5:
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        assert not target.exists()
    run = start(source, target, coordinator.url)
    told, complaints = run.communicate(timeout=PATIENCE_S * 2)
    assert run.returncode == 0, complaints
    summary = json.loads(told)
    assert summary["rows"] == ROWS
    assert 3 * ROWS // 5 <= summary["before"] < ROWS
    if suffix == ".csv":
        with target.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [int(row["number"]) for row in rows] == list(range(ROWS))
    assert {row["mole_result"] for row in rows} == {"negative"}
    assert len({row["mole_request_id"] for row in rows}) == ROWS

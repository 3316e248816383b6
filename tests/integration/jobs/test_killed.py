"""Coordinators are killed in the middle of a job; each item is in the results exactly once.

Three kills by default, ten with `--full`; `JOB_KILLS` sets another number.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mole import Mole
from mole.results import ItemResult
from tests.stubs import files
from tests.stubs.postgres import PostgresServer
from tests.stubs.processes import Process, Stage

pytestmark = pytest.mark.slow

ITEMS = 2000
PATIENCE_S = 120.0
ITEM_MS = "30"
GIVEN = {"MOLE_JOB_LEASE_SECONDS": "1", "MOLE_JOB_CONCURRENCY": "2"}


def requests(count: int) -> list[dict[str, Any]]:
    """Each with its own right answer; every tenth is the caller's mistake."""
    told = ("negative", "neutral", "positive")
    fixed = {"task": files.SENTIMENT, "language": "en"}
    return [{"text": told[i % 3], "options": fixed if i % 10 else {"task": "no/such"}} for i in range(count)]


def seen(client: Mole, job_id: str, check: Callable[[Any], bool]) -> Any:
    """The job as soon as it looks like that."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        job = client.job(job_id)
        if check(job):
            return job
        time.sleep(0.02)
    raise AssertionError(f"it never came so far: {client.job(job_id)}")


def check_results(results: list[ItemResult], count: int) -> None:
    assert [result.index for result in results] == list(range(count))
    for sent, result in zip(requests(count), results, strict=True):
        if result.index % 10:
            assert result.answer is not None
            assert result.answer.result == sent["text"]
        else:
            assert result.error is not None
            assert result.error.type == "/problems/unknown-task"


def fleet(stage: Stage, folder: Path) -> None:
    """A worker slow enough that a job outlasts the restarts."""
    given = {"WORKER_MODEL_KEY": files.MODEL, "CONFIG_PATH": str(folder), "STUB_ITEM_MS": ITEM_MS}
    worker = stage._uvicorn("tests.stubs.slow_worker_app:app", None, given)
    files.write(folder, files.mapping(worker.url))
    worker.wait_for("/api/v1/health/ready")


def ready(coordinator: Process) -> Process:
    coordinator.wait_for("/api/v1/health/ready")
    return coordinator


def killed(coordinator: Process) -> None:
    coordinator.send(signal.SIGKILL)
    coordinator.wait_end()


@pytest.mark.timeout(600)
def test_a_coordinator_killed_again_and_again_finishes_each_item_once(
    stage: Stage, tmp_path: Path, kills: int
) -> None:
    fleet(stage, tmp_path)
    coordinator = ready(stage.coordinator(**GIVEN))
    with Mole(coordinator.url) as client:
        job_id = client.submit_job(requests(ITEMS), idempotency_key="k").job_id
    for number in range(1, kills + 1):
        share = number * ITEMS // (kills + 1)
        with Mole(coordinator.url) as client:
            job = seen(client, job_id, lambda job, share=share: job.done + job.failed >= share)
            assert job.finished_at is None
        killed(coordinator)
        coordinator = ready(stage.coordinator(**GIVEN))
    with Mole(coordinator.url) as client:
        job = seen(client, job_id, lambda job: job.finished_at is not None)
        assert (job.state, job.done, job.failed) == ("succeeded", ITEMS * 9 // 10, ITEMS // 10)
        check_results(list(client.job_results(job_id)), ITEMS)
        assert client.submit_job(requests(ITEMS), idempotency_key="k").job_id == job_id


@pytest.mark.timeout(600)
def test_two_coordinators_on_one_postgresql_share_a_job_and_survive_kills(
    stage: Stage, tmp_path: Path, postgres_url: str, kills: int
) -> None:
    fleet(stage, tmp_path)
    given = {**GIVEN, "DATABASE_URL": postgres_url}
    pair = [ready(stage.coordinator(**given)) for _ in range(2)]
    with Mole(pair[0].url) as client:
        job_id = client.submit_job(requests(ITEMS)).job_id
    for number in range(1, kills + 1):
        share = number * ITEMS // (kills + 1)
        victim, other = number % 2, 1 - number % 2
        with Mole(pair[other].url) as client:
            job = seen(client, job_id, lambda job, share=share: job.done + job.failed >= share)
            assert job.finished_at is None
        assert worked(pair[victim]) > 0  # both take their part
        killed(pair[victim])
        pair[victim] = ready(stage.coordinator(**given))
    with Mole(pair[0].url) as client:
        job = seen(client, job_id, lambda job: job.finished_at is not None)
        assert (job.state, job.done, job.failed) == ("succeeded", ITEMS * 9 // 10, ITEMS // 10)
        check_results(list(client.job_results(job_id)), ITEMS)


def worked(coordinator: Process) -> float:
    """Items that this process has run."""
    told = httpx.get(coordinator.url + "/metrics", trust_env=False).text.splitlines()
    return sum(float(line.split()[-1]) for line in told if line.startswith("mole_job_items_total{"))


def test_an_upload_that_a_kill_cuts_off_leaves_no_job(stage: Stage, tmp_path: Path) -> None:
    fleet(stage, tmp_path)
    coordinator = ready(stage.coordinator())

    def endless() -> Any:
        for number in range(10_000):
            yield json.dumps({"text": "x" * 1000}).encode() + b"\n"
            if number == 2000:
                killed(coordinator)

    with httpx.Client(base_url=coordinator.url, trust_env=False, timeout=30) as client:
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "k"}
        with pytest.raises(httpx.TransportError):
            client.post("/api/v1/jobs", content=endless(), headers=headers)
    coordinator = ready(stage.coordinator())
    with Mole(coordinator.url) as again:
        job = again.submit_job(requests(5), idempotency_key="k")
        assert job.total == 5
        seen(again, job.job_id, lambda job: job.finished_at is not None)
        check_results(list(again.job_results(job.job_id)), 5)
    told = httpx.get(coordinator.url + "/metrics", trust_env=False).text
    assert 'mole_job_items_total{outcome="done"} 4.0' in told


def test_a_coordinator_that_is_asked_to_stop_leaves_no_lease(stage: Stage, tmp_path: Path) -> None:
    fleet(stage, tmp_path)
    coordinator = ready(stage.coordinator())
    with Mole(coordinator.url) as client:
        job_id = client.submit_job(requests(ITEMS)).job_id
        seen(client, job_id, lambda job: job.done >= 50)
    coordinator.send(signal.SIGTERM)
    coordinator.wait_end()
    connection = sqlite3.connect(tmp_path / "state" / "coordinator.sqlite3")
    states = dict(connection.execute("SELECT state, count(*) FROM job_items GROUP BY state").fetchall())
    counted = connection.execute("SELECT done, failed FROM jobs").fetchone()
    (attempts,) = connection.execute("SELECT max(attempts) FROM job_items WHERE state = 'pending'").fetchone()
    connection.close()
    assert set(states) == {"done", "failed", "pending"}
    assert counted == (states["done"], states["failed"])
    assert attempts == 0


@pytest.mark.timeout(300)
def test_an_outage_of_postgresql_and_of_the_worker_fails_no_item(
    stage: Stage, tmp_path: Path, server: PostgresServer, postgres_url: str
) -> None:
    worker = stage.worker()
    files.write(tmp_path, files.mapping(worker.url))
    worker.wait_for("/api/v1/health/ready")
    coordinator = ready(stage.coordinator(DATABASE_URL=postgres_url))
    with Mole(coordinator.url) as client:
        job_id = client.submit_job(requests(ITEMS)).job_id
        seen(client, job_id, lambda job: job.done >= 100)
        server.stop()
        try:
            for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/results"):
                answer = httpx.get(f"{coordinator.url}/api/v1{path}", trust_env=False, timeout=30)
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
        finally:
            server.start()
        before = seen(client, job_id, lambda job: job.done >= 300)
        assert before.finished_at is None
        port = worker.port
        worker.stop()
        seen(client, job_id, lambda job: retried(coordinator) > 0)
        stage.worker(port=port).wait_for("/api/v1/health/ready")
        job = seen(client, job_id, lambda job: job.finished_at is not None)
        assert (job.done, job.failed) == (ITEMS * 9 // 10, ITEMS // 10)
        check_results(list(client.job_results(job_id)), ITEMS)


def retried(coordinator: Process) -> float:
    told = httpx.get(coordinator.url + "/metrics", trust_env=False).text.splitlines()
    return sum(float(x.split()[-1]) for x in told if x.startswith('mole_job_items_total{outcome="retry"'))

"""A worker that dies under load, and a coordinator that is stopped under load."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.docker.conftest import NAMES
from tests.docker.engine import API, Stack, docker, inspect, wait_for
from tests.docker.requests import LABELS, Load, classify_batch, get, wait_until_answered

COORDINATOR, WORKER = NAMES
ITEMS = 60
"""Enough to keep the worker busy for seconds."""


def kill_as_the_kernel_would() -> None:
    """Ends the worker's process from outside of Docker, as when memory runs out."""
    if os.geteuid() != 0:
        pytest.skip("ending a container's process from outside needs root")
    os.kill(inspect(WORKER)["State"]["Pid"], signal.SIGKILL)


def test_a_worker_that_dies_is_restarted_and_until_then_requests_are_503(stack: Stack):
    wait_until_answered()
    with Load() as load:
        wait_for("answers", lambda: load.statuses[200] >= 5)
        kill_as_the_kernel_would()
        wait_for("the restart", lambda: inspect(WORKER)["RestartCount"] == 1)
        wait_for("refusals", lambda: load.statuses[503] >= 5)
        before = load.statuses[200]
        wait_for("answers again", lambda: load.statuses[200] >= before + 5)
    assert load.unclean == []
    assert set(load.statuses) == {200, 503}
    assert load.refused == 0


def test_docker_kill_is_taken_for_the_operators_will_and_start_brings_it_back(stack: Stack):
    """The Engine never restarts what `docker kill` ended, whatever the policy says."""
    wait_until_answered()
    with Load() as load:
        wait_for("answers", lambda: load.statuses[200] >= 5)
        docker("kill", WORKER)
        wait_for("refusals", lambda: load.statuses[503] >= 8)
        assert inspect(WORKER)["State"]["Status"] == "exited"
        docker("start", WORKER)
        before = load.statuses[200]
        wait_for("answers again", lambda: load.statuses[200] >= before + 5)
    assert load.unclean == []
    assert set(load.statuses) == {200, 503}


def test_stopping_the_coordinator_cuts_no_answer(stack: Stack):
    wait_until_answered()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(classify_batch, ITEMS)
        wait_for("calls at the worker", lambda: get(f"{API}/workers")["workers"][0]["outstanding"] >= 5)
        docker("stop", COORDINATOR)
        answer = asked.result()
    assert "draining: 1 requests in flight" in docker("logs", "--tail", "60", COORDINATOR)
    assert inspect(COORDINATOR)["State"]["ExitCode"] in (0, 143)  # ended by itself: 137 is a kill
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert len(results) == ITEMS
    assert {result.get("result") for result in results} <= {*LABELS}, answer.text
    docker("start", COORDINATOR)
    wait_until_answered()

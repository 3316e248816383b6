"""Steady load on a fleet whose workers die, hang and lie while its files are edited: nothing may fail.

Short by default; `--full` runs the minute that the bar asks for.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stubs import files
from tests.stubs.load import Load, at_rate
from tests.stubs.processes import Process, Stage

pytestmark = pytest.mark.slow
CLASSIFY = "/api/v1/classify"
BODY = {"text": "positive", "options": {"task": files.SENTIMENT, "language": "en", "via": "expert"}}
ATTEMPT_S = 2
RATE = 20
LIES = ("garbage", "error", "truncated", "drip")
DIES, HANGS, LIES_ID = "worker-0", "worker-1", "worker-2"


def get(process: Process, path: str) -> httpx.Response:
    return httpx.get(process.url + path, timeout=10, trust_env=False)


def workers(coordinator: Process) -> dict[str, Any]:
    return {w["worker_id"]: w for w in get(coordinator, "/api/v1/workers").json()["workers"]}


async def eventually(check: Callable[[], Any], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(check):  # noqa: ASYNC110 - the other side is a process
            await asyncio.sleep(0.05)


def replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text)
    os.replace(scratch, path)


def outcomes(metrics: str, worker_id: str) -> set[str]:
    """How calls of the worker ended, as the metrics tell it."""
    found = re.findall(
        rf'mole_worker_(?:requests|trials)_total{{outcome="(\w+)",worker="{worker_id}"}} [1-9]', metrics
    )
    return set(found)


async def dies(stage: Stage, coordinator: Process, worker: Process) -> None:
    worker.send(signal.SIGKILL)
    await eventually(lambda: workers(coordinator)[DIES]["state"] in ("down", "ejected"))
    again = stage.worker(port=worker.port)
    await asyncio.to_thread(again.wait_for, "/api/v1/health/ready")
    await eventually(lambda: workers(coordinator)[DIES]["state"] == "healthy")


async def hangs(coordinator: Process, worker: Process, seconds: float) -> None:
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    told = workers(coordinator)[HANGS]
    assert told["state"] in ("down", "ejected"), told
    assert told["reason"]
    worker.send(signal.SIGCONT)
    await eventually(lambda: workers(coordinator)[HANGS]["state"] == "healthy")


async def lies(worker: Process, end: asyncio.Event) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        while not end.is_set():
            for mode in LIES:
                await client.post(f"{worker.url}/mode/{mode}", timeout=10)
                await asyncio.sleep(1.0)
        await client.post(f"{worker.url}/mode/ok", timeout=10)


async def test_no_request_is_lost(stage: Stage, full: bool) -> None:
    fleet = [stage.worker(), stage.worker(), stage.faulty()]
    mapping = files.mapping(*(worker.url for worker in fleet))
    _, mapping_file = files.write(stage.folder, mapping)
    coordinator = stage.coordinator(REQUEST_TIMEOUT_SECONDS=str(ATTEMPT_S), MOLE_CONNECT_TIMEOUT_SECONDS="1")
    coordinator.wait_for("/api/v1/health/ready")
    await eventually(lambda: all(w["state"] == "healthy" for w in workers(coordinator).values()))
    load, over, ends = Load(), asyncio.Event(), time.monotonic() + (60 if full else 20)
    asking = asyncio.create_task(at_rate(load, coordinator.url + CLASSIFY, BODY, RATE, over.is_set))
    lying = asyncio.create_task(lies(fleet[2], over))

    await dies(stage, coordinator, fleet[0])
    mapping["workers"][DIES]["note"] = "edited"
    replace(mapping_file, json.dumps(mapping))
    await hangs(coordinator, fleet[1], 10 if full else 5)
    before = get(coordinator, "/api/v1/workers").json()["mapping"]
    replace(mapping_file, '{"workers": {}, "model_to_worker": {"tiny": "nobody"}}')
    await eventually(lambda: get(coordinator, "/api/v1/workers").json()["mapping"]["refused"])
    assert get(coordinator, "/api/v1/workers").json()["mapping"]["loaded_at"] == before["loaded_at"]
    while time.monotonic() < ends:  # noqa: ASYNC110 - the load goes on
        await asyncio.sleep(0.1)
    over.set()
    await asking
    await lying

    print(f"\n{load}")
    assert load.failures == []
    # Each attempt is bounded, and there are three workers: no answer can have taken longer than this.
    assert load.quantile(1) < 2.5 * ATTEMPT_S
    metrics = get(coordinator, "/metrics").text
    for worker_id in (DIES, HANGS):
        # A probe may find it out before any request does.
        assert f'mole_worker_probe_changes_total{{view="down",worker="{worker_id}"}}' in metrics
    # An ejected worker is not asked: a short run may end before each lie has been told.
    seen = outcomes(metrics, LIES_ID) & {"invalid", "error", "truncated", "timeout"}
    assert len(seen) >= (3 if full else 1), seen
    assert "mole_configuration_refused 1.0" in metrics
    await eventually(lambda: workers(coordinator)[LIES_ID]["state"] == "healthy")


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_single_replica_fails_cleanly_and_serves_soon_again(
    stage: Stage, fault: signal.Signals
) -> None:
    worker = stage.worker()
    files.write(stage.folder, files.mapping(worker.url))
    coordinator = stage.coordinator(REQUEST_TIMEOUT_SECONDS="1", MOLE_CONNECT_TIMEOUT_SECONDS="1")
    coordinator.wait_for("/api/v1/health/ready")
    await eventually(lambda: workers(coordinator)[DIES]["state"] == "healthy")
    load, over = Load(), asyncio.Event()
    asking = asyncio.create_task(at_rate(load, coordinator.url + CLASSIFY, BODY, RATE, over.is_set))
    await eventually(lambda: load.statuses[200] > RATE)
    worker.send(fault)
    await eventually(lambda: sum(load.statuses.values()) - load.statuses[200] > 2 * RATE)
    if fault == signal.SIGSTOP:
        worker.send(signal.SIGCONT)
    else:
        worker = await asyncio.to_thread(stage.worker, worker.port)
    await asyncio.to_thread(worker.wait_for, "/api/v1/health/ready")
    before = load.statuses[200]
    await eventually(lambda: load.statuses[200] > before, seconds=5)
    over.set()
    await asking
    print(f"\n{load}")
    assert set(load.statuses) <= {200, 502, 503, 504}, load.failures[:3]
    assert load.without_retry_after == 0

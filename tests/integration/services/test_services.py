"""Both services as real processes: the whole path, editing the files, disconnecting, draining."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stubs import files, pool
from tests.stubs.processes import Process, Stage

CLASSIFY = "/api/v1/classify"
FIXED = {"task": files.SENTIMENT, "language": "en", "via": "expert"}


def get(process: Process, path: str) -> httpx.Response:
    return httpx.get(process.url + path, timeout=10, trust_env=False)


def post(process: Process, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(process.url + path, json=body, headers=headers, timeout=30, trust_env=False)


def eventually(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"never true: {check}")


def both(stage: Stage) -> tuple[Process, Process]:
    worker = stage.worker()
    files.write(stage.folder, files.mapping(worker.url))
    worker.wait_for("/api/v1/health/ready")
    coordinator = stage.coordinator()
    coordinator.wait_for("/api/v1/health/ready")
    eventually(lambda: states(coordinator) == ["healthy"])
    return worker, coordinator


@pytest.fixture(scope="module")
def pair(shared_stage: Stage) -> tuple[Process, Process]:
    """A worker and a coordinator that several tests ask."""
    return both(shared_stage)


def states(coordinator: Process) -> list[str]:
    return [worker["state"] for worker in get(coordinator, "/api/v1/workers").json()["workers"]]


def queue_depth(worker: Process) -> int:
    return int(get(worker, "/api/v1/health").json()["queue_depth"])


def test_the_whole_path(pair: tuple[Process, Process]) -> None:
    _, coordinator = pair
    options = {"return_probabilities": True}
    answer = post(coordinator, CLASSIFY, {"text": "neutral", "options": options})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["result"], body["worker_id"], body["model_key"]) == ("neutral", "worker-0", "tiny")
    assert set(body["probabilities"]) == set(files.LABELS)
    assert [step["step"] for step in body["routing_path"]][-1] == "expert"
    assert body["timings_ms"]["worker"] > 0
    entities = post(coordinator, CLASSIFY, {"text": "Zoë is in", "options": {**FIXED, "task": files.PII}})
    assert entities.json()["result"] == "entities"
    assert entities.json()["entities"][0]["value"] == "Zoë"


def test_what_is_decided_is_what_is_done(pair: tuple[Process, Process]) -> None:
    _, coordinator = pair
    route = post(coordinator, "/api/v1/route", {"text": "neutral"}).json()
    done = post(coordinator, CLASSIFY, {"text": "neutral"}).json()
    assert (route["task"], route["domain"], route["language"]) == (
        done["task"],
        done["domain"],
        done["language"],
    )
    assert route["candidates"] == [done["worker_id"]]
    assert route["expert"] == {"model_key": done["model_key"], "adapter_name": "fin"}


def test_nothing_is_encoded_where_everything_is_fixed(pair: tuple[Process, Process]) -> None:
    _, coordinator = pair
    before = get(coordinator, "/api/v1/stats").json()["encoder_passes"]
    for _ in range(3):
        answer = post(coordinator, CLASSIFY, {"text": "x", "options": FIXED}).json()
        assert answer["timings_ms"]["encode"] == 0
    assert get(coordinator, "/api/v1/stats").json()["encoder_passes"] == before
    assert f"mole_encoder_passes_total {before}.0" in get(coordinator, "/metrics").text


async def test_many_at_once_while_live_answers(pair: tuple[Process, Process]) -> None:
    worker, coordinator = pair
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        body = {"text": "positive", "options": FIXED}
        calls = [client.post(coordinator.url + CLASSIFY, json=body) for _ in range(32)]
        lives = [client.get(worker.url + "/api/v1/health/live") for _ in range(4)]
        answers = await asyncio.gather(*calls, *lives)
    assert [a.status_code for a in answers] == [200] * 36


def test_a_batch_answers_in_order_and_judges_each_by_itself(pair: tuple[Process, Process]) -> None:
    _, coordinator = pair
    items: list[Any] = [{"text": label, "options": FIXED} for label in files.LABELS]
    items[1:1] = [{"text": "  "}, 7, {"text": "x", "options": {"task": "no/such"}}]
    answer = post(coordinator, "/api/v1/classify/batch", {"items": items})
    assert answer.status_code == 200
    told = [r["result"] if "result" in r else r["error"]["status"] for r in answer.json()["results"]]
    assert told == ["negative", 400, 400, 400, "neutral", "positive"]


def test_a_client_that_goes_takes_its_work_along(pair: tuple[Process, Process]) -> None:
    worker, coordinator = pair
    body = json.dumps({"text": pool.WAIT, "options": FIXED}).encode()
    with socket.create_connection(("127.0.0.1", coordinator.port)) as connection:
        head = f"POST {CLASSIFY} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        eventually(lambda: queue_depth(worker) == 1)
    eventually(lambda: queue_depth(worker) == 0)
    assert 'status="499"' in get(coordinator, "/metrics").text
    assert states(coordinator) == ["healthy"]


async def test_a_drained_worker_finishes_what_it_has(stage: Stage) -> None:
    worker, _ = both(stage)
    headers = {"X-MoLE-Timeout-Ms": "2500"}
    body = {"task_key": files.SENTIMENT, "text": pool.WAIT, "language": "en"}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        call = asyncio.create_task(
            client.post(worker.url + "/api/v1/expert/classify", json=body, headers=headers)
        )
        await asyncio.to_thread(eventually, lambda: queue_depth(worker) == 1)
        worker.send(signal.SIGTERM)
        ready = await asyncio.to_thread(worker.wait_for, "/api/v1/health/ready", 503)
        assert ready.json()["status"] == "draining"
        refused = await client.post(worker.url + "/api/v1/expert/classify", json={**body, "text": "x"})
        assert refused.json()["type"] == "/problems/not-ready"
        assert (await call).status_code == 504  # in its own time, not broken off
    assert await asyncio.to_thread(worker.wait_end) in (0, -signal.SIGTERM)


async def test_a_drained_coordinator_finishes_what_it_has(stage: Stage) -> None:
    worker = stage.faulty("slow")
    files.write(stage.folder, files.mapping(worker.url))
    coordinator = stage.coordinator()
    coordinator.wait_for("/api/v1/health/ready")
    await asyncio.to_thread(eventually, lambda: states(coordinator) == ["healthy"])
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        body = {"text": "x", "options": FIXED}
        call = asyncio.create_task(client.post(coordinator.url + CLASSIFY, json=body))
        while not get(worker, "/seen").json()["seen"]:  # noqa: ASYNC110 - the other side is a process
            await asyncio.sleep(0.01)
        coordinator.send(signal.SIGTERM)
        assert (await call).status_code == 200
    assert await asyncio.to_thread(coordinator.wait_end) in (0, -signal.SIGTERM)


def replace(path: Path, text: str) -> None:
    """As editors do: write another file and rename it over the first."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text)
    os.replace(scratch, path)


def test_edits_of_the_mapping_are_live(stage: Stage) -> None:
    first, second = stage.faulty("ok"), stage.faulty("ok")
    _, mapping_file = files.write(stage.folder, files.mapping(first.url))
    coordinator = stage.coordinator()
    coordinator.wait_for("/api/v1/health/ready")
    eventually(lambda: states(coordinator) == ["healthy"])

    replace(mapping_file, json.dumps(files.mapping(first.url, second.url)))
    eventually(lambda: states(coordinator) == ["healthy", "healthy"], 5)

    replace(mapping_file, '{"workers": {}, "model_to_worker": {"tiny": "nobody"}}')
    refused = eventually(lambda: get(coordinator, "/api/v1/workers").json()["mapping"]["refused"], 5)
    assert "nobody" in refused["error"]
    assert states(coordinator) == ["healthy", "healthy"]
    assert post(coordinator, CLASSIFY, {"text": "x", "options": FIXED}).status_code == 200

    mapping_file.write_text("{")
    eventually(lambda: "JSON" in get(coordinator, "/api/v1/workers").json()["mapping"]["refused"]["error"], 5)
    drained = files.mapping(first.url)
    drained["workers"]["worker-0"]["drain"] = True
    mapping_file.write_text(json.dumps(drained))
    eventually(lambda: states(coordinator) == ["draining"], 5)
    assert get(coordinator, "/api/v1/workers").json()["mapping"]["refused"] is None
    assert post(coordinator, CLASSIFY, {"text": "x", "options": FIXED}).status_code == 503


def test_a_bad_mapping_at_start_is_told_and_mended_without_restart(stage: Stage) -> None:
    worker = stage.faulty("ok")
    _, mapping_file = files.write(stage.folder, {"workers": {"w": {"url": "ftp://x"}}})
    coordinator = stage.coordinator()
    ready = coordinator.wait_for("/api/v1/health/ready", 503)
    assert ready.json()["status"] == "failed"
    assert "$.workers.w.url" in ready.json()["detail"]
    assert get(coordinator, "/api/v1/health/live").status_code == 200
    assert post(coordinator, CLASSIFY, {"text": "x"}).status_code == 503
    replace(mapping_file, json.dumps(files.mapping(worker.url)))
    coordinator.wait_for("/api/v1/health/ready")

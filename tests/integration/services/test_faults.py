"""One test for each way in which a worker can fail, with real processes on both sides."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.stubs import files
from tests.stubs.processes import Process, Stage, free_port

CLASSIFY = "/api/v1/classify"
BODY = {"text": "Sales rose.", "options": {"task": files.SENTIMENT, "language": "en", "via": "expert"}}
TWIN = "twin"
TWIN_TASK = "general/twin"
FAST = {
    "REQUEST_TIMEOUT_SECONDS": "0.5",
    "MOLE_EJECT_AFTER_ERRORS": "1",
    "MOLE_EJECT_SECONDS": "0.3",
    "MOLE_WORKER_TOKEN": "secret",
}

# How the coordinator answers where there is no other replica.
CLASSES = {
    "hang": 504,
    "drip": 504,
    "reset": 503,
    "truncated": 502,
    "error": 502,
    "garbage": 502,
    "wrong_label": 502,
    "nan": 502,
    "not_http": 502,
    "huge": 502,
    "unauthorized": 502,
    "unavailable": 503,
}


def post(coordinator: Process, body: dict[str, Any] | None = None) -> httpx.Response:
    return httpx.post(coordinator.url + CLASSIFY, json=body or BODY, timeout=30, trust_env=False)


def workers(coordinator: Process) -> dict[str, Any]:
    answer = httpx.get(coordinator.url + "/api/v1/workers", timeout=10, trust_env=False).json()
    return {worker["worker_id"]: worker for worker in answer["workers"]}


def until_healthy(coordinator: Process, *worker_ids: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if all(workers(coordinator)[name]["state"] == "healthy" for name in worker_ids):
            return
        time.sleep(0.05)
    raise AssertionError(workers(coordinator))


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    problem: dict[str, Any] = answer.json()
    assert problem["type"].startswith("/problems/")
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


@dataclass
class Scene:
    """One coordinator over a model with a single worker and a model with two replicas."""

    coordinator: Process
    single: Process
    replicas: tuple[Process, Process]


@pytest.fixture(scope="module")
def scene(shared_stage: Stage) -> Scene:
    workers = [shared_stage.faulty(), shared_stage.faulty(model=TWIN), shared_stage.faulty(model=TWIN)]
    mapping = files.mapping(workers[0].url)
    for name, worker in (("bad", workers[1]), ("good", workers[2])):
        mapping["workers"][name] = {"url": worker.url, "base_model_key": TWIN}
    mapping["model_to_worker"][TWIN] = ["bad", "good"]
    registry = files.registry()
    registry["base_models"][TWIN] = {"hf_name": "none"}
    registry["tasks"][TWIN_TASK] = {"base_model_key": TWIN, "label_set": files.LABELS}
    files.write(shared_stage.folder, mapping, registry)
    coordinator = shared_stage.coordinator(**FAST)
    coordinator.wait_for("/api/v1/health/ready")
    return Scene(coordinator, workers[0], (workers[1], workers[2]))


def tell(worker: Process, mode: str) -> None:
    httpx.post(f"{worker.url}/mode/{mode}", timeout=10, trust_env=False)


@pytest.mark.parametrize(("mode", "status"), CLASSES.items())
def test_a_single_worker_fails_cleanly_and_comes_back(scene: Scene, mode: str, status: int) -> None:
    tell(scene.single, "ok")
    until_healthy(scene.coordinator, "worker-0")
    tell(scene.single, mode)
    check_problem(post(scene.coordinator), status)
    told = workers(scene.coordinator)["worker-0"]
    assert told["state"] == "ejected"
    assert told["reason"]
    assert told["until"]
    tell(scene.single, "ok")
    until_healthy(scene.coordinator, "worker-0")
    assert post(scene.coordinator).status_code == 200


@pytest.mark.parametrize("mode", CLASSES)
def test_another_replica_mends_it(scene: Scene, mode: str) -> None:
    bad, _ = scene.replicas
    tell(bad, "ok")
    until_healthy(scene.coordinator, "bad", "good")
    tell(bad, mode)
    body = {**BODY, "options": {**BODY["options"], "task": TWIN_TASK}}
    answers = [post(scene.coordinator, body) for _ in range(6)]
    assert [a.status_code for a in answers] == [200] * 6
    assert {a.json()["worker_id"] for a in answers} == {"good"}


def test_a_worker_that_is_not_there(stage: Stage) -> None:
    files.write(stage.folder, files.mapping(f"http://127.0.0.1:{free_port()}"))
    coordinator = stage.coordinator()
    assert coordinator.wait_for("/api/v1/health/ready").json()["status"] == "ready"
    problem = check_problem(post(coordinator), 503)
    assert problem["type"] == "/problems/no-worker"
    assert workers(coordinator)["worker-0"]["state"] == "down"


def test_a_worker_that_holds_another_model_is_refused(stage: Stage) -> None:
    worker = stage.faulty("ok", model="another")
    files.write(stage.folder, files.mapping(worker.url))
    coordinator = stage.coordinator()
    coordinator.wait_for("/api/v1/health/ready")
    check_problem(post(coordinator), 503)
    told = workers(coordinator)["worker-0"]
    assert told["state"] == "refused"
    assert "another" in told["reason"]


def test_a_full_worker_is_not_ejected(scene: Scene) -> None:
    worker, coordinator = scene.single, scene.coordinator
    tell(worker, "ok")
    until_healthy(coordinator, "worker-0")
    tell(worker, "overloaded")
    assert check_problem(post(coordinator), 503)["type"] == "/problems/overloaded"
    assert workers(coordinator)["worker-0"]["state"] == "healthy"


def test_what_the_worker_finds_wrong_with_the_request_is_told(scene: Scene) -> None:
    worker, coordinator = scene.single, scene.coordinator
    tell(worker, "ok")
    until_healthy(coordinator, "worker-0")
    tell(worker, "missing_field")
    answer = post(coordinator)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/missing-field")
    assert workers(coordinator)["worker-0"]["state"] == "healthy"


def test_a_hasty_caller_ejects_nobody(scene: Scene) -> None:
    worker, coordinator = scene.single, scene.coordinator
    tell(worker, "ok")
    until_healthy(coordinator, "worker-0")
    tell(worker, "slow")
    options = {**BODY["options"], "timeout_seconds": 0.05}
    check_problem(post(coordinator, {**BODY, "options": options}), 504)
    assert workers(coordinator)["worker-0"]["state"] == "healthy"
    seen = httpx.get(f"{worker.url}/seen", timeout=10, trust_env=False).json()
    assert 0 < int(seen["headers"]["x-mole-timeout-ms"]) <= 50


def test_wrong_offsets_are_an_invalid_answer(scene: Scene) -> None:
    worker, coordinator = scene.single, scene.coordinator
    tell(worker, "ok")
    until_healthy(coordinator, "worker-0")
    tell(worker, "wrong_offsets")
    body = {"text": "Ann is here", "options": {"task": files.PII, "language": "en"}}
    assert "offsets" in check_problem(post(coordinator, body), 502)["detail"]


def test_ids_and_traces_go_through(scene: Scene) -> None:
    worker, coordinator = scene.single, scene.coordinator
    tell(worker, "ok")
    until_healthy(coordinator, "worker-0")
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"X-Request-ID": "mine-1", "traceparent": trace}
    answer = httpx.post(coordinator.url + CLASSIFY, json=BODY, headers=headers, timeout=10, trust_env=False)
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine-1"
    assert answer.headers["x-mole-expert"] == "finance/sentiment_analysis@fin"
    assert float(answer.headers["x-mole-overhead-duration-ms"]) >= 0
    sent = httpx.get(f"{worker.url}/seen", timeout=10, trust_env=False).json()["headers"]
    assert sent["x-request-id"] == "mine-1"
    assert sent["traceparent"] == trace
    assert sent["authorization"] == "Bearer secret"

"""One coordinator of several processes: `uvicorn --workers`."""

from __future__ import annotations

import time

import httpx

from tests.stubs import files
from tests.stubs.processes import PATIENCE_S, Stage


def test_two_processes_classify_and_work_off_a_job(stage: Stage) -> None:
    worker = stage.worker()
    files.write(stage.folder, files.mapping(worker.url))
    worker.wait_for("/api/v1/health/ready")
    coordinator = stage.coordinator("--workers", "2")
    coordinator.wait_for("/api/v1/health/ready")
    coordinator.wait_healthy()
    answers, processes = [], set()
    end = time.monotonic() + PATIENCE_S
    while len(processes) < 2 and time.monotonic() < end:  # each connection goes to either of them
        with httpx.Client(base_url=coordinator.url, timeout=30, trust_env=False) as client:
            processes.add(client.get("/api/v1/stats/traffic").json()["process"])
            if client.get("/api/v1/health/ready").status_code == 200:
                answers.append(client.post("/api/v1/classify", json={"text": "positive"}))
    assert len(processes) == 2
    assert answers
    assert all(answer.json()["result"] == "positive" for answer in answers if answer.status_code == 200)
    assert any(answer.status_code == 200 for answer in answers)
    with httpx.Client(base_url=coordinator.url, timeout=30, trust_env=False) as client:
        items = {"items": [{"text": "positive"}] * 50}
        url = "/api/v1/jobs/" + client.post("/api/v1/jobs", json=items).json()["job_id"]
        while client.get(url).json()["state"] != "succeeded" and time.monotonic() < end:
            time.sleep(0.05)
        assert client.get(url).json()["done"] == 50
        assert len(client.get(url + "/results").text.splitlines()) == 50

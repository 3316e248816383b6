"""One request is one trace over both services, and its id is in both logs."""

from __future__ import annotations

import json
import re

import httpx

from tests.stubs import files
from tests.stubs.processes import Process, Stage

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTEL = {"OTEL_TRACES_EXPORTER": "console", "MOLE_LOG_FORMAT": "json"}


def spans(process: Process) -> list[dict[str, str]]:
    """What the console exporter wrote, with names, kinds and places in the trace."""
    found = []
    for text in re.findall(r"^\{$.*?^\}$", process.log.read_text(), re.MULTILINE | re.DOTALL):
        span = json.loads(text)
        if span["context"]["trace_id"] == f"0x{TRACE}":
            own = {"name": span["name"], "id": span["context"]["span_id"], "parent": span["parent_id"]}
            found.append(own)
    return found


def test_a_request_is_one_trace(stage: Stage) -> None:
    worker = stage.worker(**OTEL)
    files.write(stage.folder, files.mapping(worker.url))
    worker.wait_for("/api/v1/health/ready")
    coordinator = stage.coordinator(**OTEL)
    coordinator.wait_for("/api/v1/health/ready")
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-ID": "traced-1"}
    body = {"text": "positive", "options": {"task": files.SENTIMENT, "language": "en"}}
    coordinator.wait_healthy()
    answer = httpx.post(
        coordinator.url + "/api/v1/classify", json=body, headers=headers, timeout=30, trust_env=False
    )
    assert answer.status_code == 200
    for process in (coordinator, worker):
        process.stop()
    ours = {span["name"]: span for span in spans(coordinator)}
    (theirs,) = spans(worker)
    server, client = ours["POST /api/v1/classify"], ours["POST /api/v1/expert/classify"]
    assert server["parent"] == "0x00f067aa0ba902b7"
    assert ours["gating"]["parent"] == client["parent"] == server["id"]
    assert (theirs["name"], theirs["parent"]) == ("POST /api/v1/expert/classify", client["id"])
    for process in (coordinator, worker):
        lines = [json.loads(x) for x in process.log.read_text().splitlines() if x.startswith('{"time"')]
        assert "traced-1" in {line.get("request_id") for line in lines}

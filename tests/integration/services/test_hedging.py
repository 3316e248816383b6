"""Hedging with real processes: a slow replica is passed over, and stops working on what nobody waits for."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest

from tests.stubs import files
from tests.stubs.processes import Process, Stage

CLASSIFY = "/api/v1/classify"
BODY = {"text": "positive", "options": {"task": files.SENTIMENT, "language": "en", "via": "expert"}}
MOST_TRIES = 100
"""Whom the coordinator asks first is chance: that it is never the slow one is one in 2¹⁰⁰."""


def slow_worker(stage: Stage, name: str, milliseconds: int) -> Process:
    """The real worker application over a stub pool that takes so long."""
    given = {"WORKER_MODEL_KEY": files.MODEL, "WORKER_ID": name, "CONFIG_PATH": str(stage.folder)}
    return stage._uvicorn(
        "tests.stubs.slow_worker_app:app", None, {**given, "STUB_ITEM_MS": str(milliseconds)}
    )


def fleet(stage: Stage, slow_ms: int, **given: str) -> tuple[Process, Process, Process]:
    """A coordinator, a slow and a quick replica of one model."""
    files.write(stage.folder, files.mapping("http://127.0.0.1:9"))
    slow, quick = slow_worker(stage, "slow", slow_ms), slow_worker(stage, "quick", 0)
    files.write(stage.folder, files.mapping(slow.url, quick.url))
    for worker in (slow, quick):
        worker.wait_for("/api/v1/health/ready")
    coordinator = stage.coordinator(**given)
    coordinator.wait_for("/api/v1/health/ready")
    coordinator.wait_healthy(2)
    return coordinator, slow, quick


def post(coordinator: Process, body: Any = None, path: str = CLASSIFY) -> httpx.Response:
    answer = httpx.post(coordinator.url + path, json=body or BODY, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer


def counted(process: Process, pattern: str) -> float:
    """The sum of the samples whose names and labels match."""
    text = httpx.get(process.url + "/metrics", timeout=10, trust_env=False).text
    lines = [line for line in text.splitlines() if re.match(pattern, line)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_the_quick_replica_answers_and_the_slow_one_is_let_go(stage: Stage) -> None:
    coordinator, slow, _ = fleet(
        stage, 120_000, MOLE_HEDGE_AFTER_SECONDS="0.05", OTEL_TRACES_EXPORTER="console"
    )
    hedged, plain = [], []
    for _ in range(MOST_TRIES):
        answer = post(coordinator)
        (hedged if "x-mole-hedged" in answer.headers else plain).append(answer)
        if len(hedged) >= 3 and plain:
            break
    assert hedged
    assert plain
    for answer in hedged:
        assert answer.headers["x-mole-hedged"] == "true"
        told = answer.json()
        assert told["worker_id"] == "worker-1"
        assert told["result"] == "positive"
        steps = [(step["step"], step["choice"]) for step in told["routing_path"]][-2:]
        assert steps == [("hedge", "worker-1"), ("expert", "fin")]
        assert told["routing_path"][-2]["ms"] >= 45
        assert float(answer.headers["x-mole-overhead-duration-ms"]) >= 0
    for answer in plain:
        assert "hedge" not in {step["step"] for step in answer.json()["routing_path"]}
    assert counted(coordinator, r'mole_hedges_total\{outcome="won"\}') == len(hedged)
    lost = r'mole_worker_requests_total\{outcome="cancelled",worker="worker-0"\}'
    assert counted(coordinator, lost) == len(hedged)
    end = time.monotonic() + 30
    while counted(slow, r'mole_expert_requests_total\{outcome="cancelled"') < len(hedged):
        assert time.monotonic() < end, "the slow worker still computes what nobody waits for"
        time.sleep(0.05)
    workers = httpx.get(coordinator.url + "/api/v1/workers", timeout=10, trust_env=False).json()["workers"]
    assert [(w["state"], w["outstanding"]) for w in workers] == [("healthy", 0)] * 2
    coordinator.stop()  # which writes the last spans
    assert coordinator.log.read_text().count('"mole.hedge": true') == len(hedged)


@pytest.mark.parametrize("hedge", [None, "0.05"])
def test_without_the_setting_and_in_a_batch_every_worker_is_waited_for(
    stage: Stage, hedge: str | None
) -> None:
    given = {} if hedge is None else {"MOLE_HEDGE_AFTER_SECONDS": hedge}
    coordinator, slow, _ = fleet(stage, 300, **given)
    served = r'mole_expert_requests_total\{outcome="ok"'
    for _ in range(MOST_TRIES):
        if hedge is None:
            assert "x-mole-hedged" not in post(coordinator).headers
        else:
            answer = post(coordinator, {"items": [BODY, BODY]}, "/api/v1/classify/batch")
            assert "x-mole-hedged" not in answer.headers
        if counted(slow, served):
            break
    assert counted(slow, served)
    assert counted(slow, r'mole_expert_requests_total\{outcome="cancelled"') == 0
    assert counted(coordinator, r"mole_hedges_total\{") == 0

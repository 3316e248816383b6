"""The distributed stack without a GPU, on a real Engine: as the table says, and answering."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.conftest import NAMES, PROJECT, replace
from tests.docker.engine import API, Stack, docker, inspect, wait_for
from tests.docker.requests import LABELS, TASK, get, wait_until_answered

COORDINATOR, WORKER = NAMES
REMOTE = "mole-test-remote"
REMOTE_PORT = 18005


def environment(container: dict[str, Any]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in container["Config"]["Env"])


def mounts(container: dict[str, Any]) -> dict[str, str]:
    """What is at each path: a volume's name, or `bind` with its mode."""
    return {
        m["Destination"]: m["Name"].removeprefix(f"{PROJECT}_")
        if m["Type"] == "volume"
        else f"bind {m['Mode']}"
        for m in container["Mounts"]
    }


@pytest.fixture
def remote(checkout: Path, engine: str, newest_compose: list[str], stack: Stack) -> Iterator[str]:
    """A third container, of the worker template, on a network of its own; its address on the host."""
    files = ["docker-compose-worker.yml", "docker-compose-worker-cpu.yml"]
    given = {"WORKER_MODEL_KEY": "gemma-3-270m", "WORKER_ID": "worker-4", "WORKER_PORT": str(REMOTE_PORT)}
    found = Stack(checkout, REMOTE, files, newest_compose, engine, **given)
    found.wipe()
    try:
        found("up", "-d")
        (network,) = inspect("mole-expert-worker-4")["NetworkSettings"]["Networks"]
        assert network != "mole-network"
        here = inspect(COORDINATOR)["NetworkSettings"]["Networks"]["mole-network"]["Gateway"]
        yield f"http://{here}:{REMOTE_PORT}"
    finally:
        found.wipe()


def test_the_worker_is_healthy_before_the_coordinator_starts(stack: Stack):
    health = stack.first_start[WORKER]["State"]["Health"]
    passed = [entry for entry in health["Log"] if entry["ExitCode"] == 0]
    assert health["Status"] == "healthy"
    assert passed[0]["End"] < stack.first_start[COORDINATOR]["State"]["StartedAt"]


def test_it_answers_through_the_worker(stack: Stack):
    answer = wait_until_answered()
    assert (answer["task"], answer["worker_id"]) == (TASK, "worker-0")
    assert answer["result"] in LABELS
    (worker,) = get(f"{API}/workers")["workers"]
    assert worker["url"] == "http://expert-worker-0:8001"


def test_the_coordinator_is_as_the_table_says(stack: Stack):
    found = inspect(COORDINATOR)
    assert mounts(found) == {
        "/app/moe_router/gating/models": "gating_models", "/app/moe_router/models": "language_models",
        "/root/.cache/fasttext": "fasttext_cache", "/app/state": "coordinator_state",
        "/app/config": "bind ro",
    }  # fmt: skip
    assert environment(found)["SERVICE_MODE"] == "coordinator"
    assert found["HostConfig"]["PortBindings"]["8000/tcp"][0]["HostPort"] == "8000"
    assert list(found["NetworkSettings"]["Networks"]) == ["mole-network"]
    assert " ".join(found["Config"]["Cmd"]) == "uvicorn app.main:app --host 0.0.0.0 --port 8000 --workers 1"
    assert found["Config"]["StopTimeout"] == 60


def test_the_worker_is_as_the_table_says(stack: Stack):
    found = inspect(WORKER)
    assert mounts(found) == {
        "/app/moe_router/experts/llms/adapters": "adapter_weights",
        "/root/.cache/huggingface": "huggingface_cache", "/app/config": "bind ro",
    }  # fmt: skip
    given = environment(found)
    assert (given["WORKER_MODEL_KEY"], given["WORKER_ID"]) == ("gemma-3-270m", "worker-0")
    assert given["MAX_CONCURRENT_GPU_REQUESTS"] == "1"
    assert not found["HostConfig"]["PortBindings"]
    command = "uvicorn expert_worker.main:app --host 0.0.0.0 --port 8001 --workers 1"
    assert " ".join(found["Config"]["Cmd"]) == command
    check = found["Config"]["Healthcheck"]
    assert check["Test"] == ["CMD", "curl", "-f", "http://localhost:8001/api/v1/health/ready"]
    nanoseconds = [30 * 10**9, 10 * 10**9, 300 * 10**9, 10]
    assert [check[key] for key in ("Interval", "Timeout", "StartPeriod", "Retries")] == nanoseconds


def test_the_network_is_a_bridge_of_the_tables_name(stack: Stack):
    found = inspect("mole-network")
    assert found["Driver"] == "bridge"
    assert {c["Name"] for c in found["Containers"].values()} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_runs_as_root(stack: Stack, name: str):
    assert docker("top", name, "-eo", "uid,pid").split()[2] == "10001"


def test_an_edit_on_the_host_is_seen_inside(stack: Stack, mapping: Path):
    edited = json.loads(mapping.read_text())
    edited["workers"]["worker-9"] = {"url": "http://127.0.0.1:9", "base_model_key": "gemma-3-270m"}
    edited["model_to_worker"]["gemma-3-270m"] = ["worker-0", "worker-9"]
    replace(mapping, edited)
    wait_for(
        "the new worker", lambda: "worker-9" in [w["worker_id"] for w in get(f"{API}/workers")["workers"]]
    )
    edited["workers"]["worker-9"]["url"] = "http://127.0.0.1:10"
    mapping.write_text(json.dumps(edited))  # in place, as other editors do
    wait_for("its new URL", lambda: "127.0.0.1:10" in str(get(f"{API}/workers")))


def test_a_broken_edit_is_refused_with_its_reason(stack: Stack, mapping: Path):
    mapping.write_text('{"workers": {')
    refused = wait_for("the refusal", lambda: get(f"{API}/workers")["mapping"].get("refused"))
    assert "expert_machine_mapping.docker.json" in refused["error"]
    assert wait_until_answered()["worker_id"] == "worker-0"


def test_a_remote_worker_is_reached_by_ip_after_only_an_edit_of_the_mapping(
    stack: Stack, mapping: Path, remote: str
):
    edited = json.loads(mapping.read_text())
    edited["workers"]["worker-4"] = {"url": remote, "base_model_key": "gemma-3-270m", "machine": "machine-4"}
    edited["model_to_worker"]["gemma-3-270m"] = "worker-4"
    replace(mapping, edited)

    def healthy() -> bool:
        states = {w["worker_id"]: w["state"] for w in get(f"{API}/workers")["workers"]}
        return states.get("worker-4") == "healthy"

    wait_for("the remote worker", healthy)
    assert wait_until_answered("worker-4")["result"] in LABELS

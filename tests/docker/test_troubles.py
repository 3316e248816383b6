"""The failures of docs/deploy.md's troubleshooting table, provoked: each says what the table says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.conftest import NAMES, PROJECT, replace
from tests.docker.engine import API, ROOT, Stack, docker, wait_for
from tests.docker.requests import classify, get, wait_until_answered

COORDINATOR, WORKER = NAMES
LONE, HUB = "mole-test-lone", "mole-test-hub"
COMMAND = "uvicorn expert_worker.main:app --host 0.0.0.0 --port 8001 --workers 1"
REFUSING_HUB = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Refuse(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to model meta-llama/Llama-2-7b-hf is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_HEAD = do_GET

HTTPServer(("0.0.0.0", 8080), Refuse).serve_forever()
"""
"""Answers as the model hub does for a gated model and no token."""


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    docker("rm", "-f", LONE, HUB, ok=False)
    yield
    docker("rm", "-f", LONE, HUB, ok=False)


def start_worker(image: str, key: str, *options: str) -> None:
    """A worker on its own with the shipped registry, whose base models are on the model hub."""
    mount = f"{ROOT / 'config'}:/app/config:ro"
    given = ("-e", f"WORKER_MODEL_KEY={key}", "-e", "CUDA_VISIBLE_DEVICES=", "-v", mount, *options)
    docker("run", "-d", "--name", LONE, *given, image, *COMMAND.split())


def failed_health() -> dict[str, Any]:
    """The worker's readiness, once it has given up."""

    def look() -> dict[str, Any] | None:
        said = docker("exec", LONE, "curl", "-s", f"http://localhost:8001{API}/health/ready", ok=False)
        if not said.startswith("{"):
            return None
        health: dict[str, Any] = json.loads(said)
        return health if health["status"] == "failed" else None

    found: dict[str, Any] = wait_for("the failure", look)
    return found


def test_a_model_key_that_the_registry_does_not_have(image: str):
    start_worker(image, "nope")
    assert "the registry has no base model 'nope'; it has: " in failed_health()["detail"]


def test_a_hub_that_cannot_be_reached(image: str):
    start_worker(image, "llama-2-7b-hf", "--network", "none")
    detail = failed_health()["detail"]
    assert "the base model meta-llama/Llama-2-7b-hf cannot be loaded: We couldn't connect to" in detail


def test_a_gated_model_without_a_token(image: str):
    docker("run", "-d", "--name", HUB, "--entrypoint", "python", image, "-c", REFUSING_HUB)
    address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", HUB).strip()
    start_worker(image, "llama-2-7b-hf", "-e", f"HF_ENDPOINT=http://{address}:8080")
    detail = failed_health()["detail"]
    assert "the base model meta-llama/Llama-2-7b-hf cannot be loaded: " in detail
    assert "gated repo" in detail


def test_a_folder_of_configuration_without_the_files(image: str, tmp_path: Path):
    tmp_path.chmod(0o755)
    docker("run", "-d", "--name", LONE, "-v", f"{tmp_path}:/app/config:ro", image)

    def look() -> bool:
        said = docker("exec", LONE, "curl", "-s", f"http://localhost:8000{API}/health/ready", ok=False)
        return '"status":"failed"' in said and "config/experts_registry.json: $: no such file" in said

    wait_for("the failure", look)


def test_a_wrong_url_in_the_mapping(stack: Stack, mapping: Path):
    wait_until_answered()
    edited = json.loads(mapping.read_text())
    edited["workers"]["worker-0"]["url"] = "http://expert-worker-0:8002"
    replace(mapping, edited)
    wait_for("down", lambda: get(f"{API}/workers")["workers"][0]["state"] == "down")
    answer = classify()
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("no-worker")
    assert "retry-after" in answer.headers


def test_another_stack_on_the_same_names_or_port(
    stack: Stack, checkout: Path, compose: list[str], engine: str
):
    files = ["docker-compose.yml", "docker-compose-monolithic-cpu.yml"]
    other = Stack(checkout, f"{PROJECT}-other", files, compose, engine)
    try:
        said = other("up", "-d", ok=False)
    finally:
        other.wipe()  # v1 ends at the network, which it cannot remove, before the volumes
        left = docker("volume", "ls", "-q", "--filter", f"name={other.project}_").split()
        for volume in left:
            docker("volume", "rm", volume)
    assert f'The container name "/{COORDINATOR}" is already in use' in said
    said = docker("run", "--rm", "-p", "8000:8000", "--name", LONE, "mole:test", "true", ok=False)
    assert "Bind for 0.0.0.0:8000 failed: port is already allocated" in said


def test_the_nvidia_runtime_is_not_there(image: str):
    if '"nvidia"' in docker("info", "-f", "{{json .Runtimes}}"):
        pytest.skip("this Engine has the runtime nvidia")
    said = docker("run", "--rm", "--runtime", "nvidia", "--name", LONE, image, "true", ok=False)
    assert "runtime" in said
    assert "nvidia" in said

"""The monolithic stack without a GPU: one container does it all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import API, Stack, inspect, wait_for
from tests.docker.requests import LABELS, TASK, get, wait_until_answered

PROJECT = "mole-test-monolithic"
FILES = ["docker-compose.yml", "docker-compose-monolithic-cpu.yml"]


@pytest.fixture
def monolithic(checkout: Path, image: str, engine: str, newest_compose: list[str]) -> Iterator[Stack]:
    found = Stack(checkout, PROJECT, FILES, newest_compose, engine)
    found.wipe()
    try:
        found("up", "-d")
        yield found
    finally:
        found.wipe()


def test_it_answers_by_itself(monolithic: Stack):
    wait_for("readiness", lambda: get(f"{API}/health/ready")["status"] == "ready")
    # The base model is converted and loaded first, on busy cores for longer than a request may take.
    body = wait_until_answered()
    assert (body["task"], body["model_key"], body["worker_id"]) == (TASK, "gemma-3-270m", "local")
    assert body["result"] in LABELS
    targets = {mount["Destination"] for mount in inspect("mole-coordinator")["Mounts"]}
    assert targets == {
        "/app/moe_router/gating/models", "/app/moe_router/models", "/app/moe_router/experts/llms/adapters",
        "/root/.cache/huggingface", "/root/.cache/fasttext", "/app/state", "/app/config",
    }  # fmt: skip

"""`down` keeps what the volumes hold, `down -v` wipes it, and `up` works from nothing."""

from __future__ import annotations

import httpx

from tests.docker.engine import API, COORDINATOR, Stack, docker
from tests.docker.requests import classify, get, wait_until_answered

ADAPTERS = "/app/moe_router/experts/llms/adapters"
FILES = {
    "mole-expert-worker-0": f"{ADAPTERS}/mine/lora/weights",
    "mole-coordinator": "/app/state/mine",
}
COUNT = (
    "import sqlite3; from pathlib import Path; "
    "(file,) = Path('/app/state').glob('*.sqlite3'); "
    "database = sqlite3.connect(f'file:{file}?mode=ro', uri=True); "
    "print(database.execute('select count(*) from feedback').fetchone()[0])"
)


def has_feedback() -> bool:
    """Whether this version of the coordinator takes feedback."""
    return f"{API}/feedback" in get("/openapi.json")["paths"]


def give_feedback() -> None:
    asked = classify().json()["request_id"]
    body = {"request_id": asked, "score": 1.0}
    answer = httpx.post(f"{COORDINATOR}{API}/feedback", json=body, timeout=30, trust_env=False)
    assert answer.status_code == 202, answer.text


def feedback_count() -> int:
    return int(docker("exec", "mole-coordinator", "python", "-c", COUNT))


def test_down_keeps_the_data(stack: Stack):
    wait_until_answered()
    for name, file in FILES.items():
        docker("exec", name, "sh", "-ec", f"mkdir -p $(dirname {file}) && echo mine >{file}")
    if has_feedback():
        give_feedback()
        assert feedback_count() == 1
    stack("down")
    assert docker("ps", "-aq", "--filter", "name=mole-coordinator") == ""
    stack("up", "-d")
    assert wait_until_answered()["worker_id"] == "worker-0"
    for name, file in FILES.items():
        assert docker("exec", name, "cat", file).strip() == "mine"
    if has_feedback():
        assert feedback_count() == 1


def test_down_v_wipes_it_and_up_works_from_nothing(stack: Stack):
    stack("down", "-v")
    assert docker("volume", "ls", "-q", "--filter", f"name={stack.project}_") == ""
    stack("up", "-d")
    assert wait_until_answered()["worker_id"] == "worker-0"
    for name, file in FILES.items():
        assert "No such file" in docker("exec", name, "cat", file, ok=False)
    if has_feedback():
        assert feedback_count() == 0

"""`down` keeps what the volumes hold, `down -v` wipes it, and `up` works from nothing."""

from __future__ import annotations

from typing import Any

from tests.docker.engine import API, Stack, docker, wait_for
from tests.docker.requests import ASKED, LABELS, classify, get, get_text, post, wait_until_answered

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


def give_feedback() -> None:
    body = {"request_id": classify().json()["request_id"], "score": 1.0}
    answer = post("/feedback", body)
    assert answer.status_code == 202, answer.text


def feedback_count() -> int:
    return int(docker("exec", "mole-coordinator", "python", "-c", COUNT))


def submit_job(items: int) -> str:
    asked = [{**ASKED, "text": f"{ASKED['text']} Nummer {index}."} for index in range(items)]
    answer = post("/jobs", {"items": asked})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def finished_job(job_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = get(f"{API}/jobs/{job_id}")
        return job if job["finished_at"] else None

    found: dict[str, Any] = wait_for(f"the end of the job {job_id}", look)
    return found


def test_down_keeps_adapters_jobs_and_feedback(stack: Stack):
    wait_until_answered()
    for name, file in FILES.items():
        docker("exec", name, "sh", "-ec", f"mkdir -p $(dirname {file}) && echo mine >{file}")
    give_feedback()
    assert feedback_count() == 1
    job = finished_job(submit_job(2))
    assert (job["state"], job["done"]) == ("succeeded", 2)
    results = get_text(f"{API}/jobs/{job['job_id']}/results")
    unfinished = submit_job(12)
    stack("down")
    assert docker("ps", "-aq", "--filter", "name=mole-coordinator") == ""

    stack("up", "-d")
    assert wait_until_answered()["worker_id"] == "worker-0"
    for name, file in FILES.items():
        assert docker("exec", name, "cat", file).strip() == "mine"
    assert feedback_count() == 1
    assert get(f"{API}/jobs/{job['job_id']}") == job
    assert get_text(f"{API}/jobs/{job['job_id']}/results") == results
    assert any(label in results for label in LABELS)
    later = finished_job(unfinished)
    assert (later["state"], later["done"], later["failed"]) == ("succeeded", 12, 0)


def test_down_v_wipes_it_and_up_works_from_nothing(stack: Stack):
    wait_until_answered()
    job_id = submit_job(1)
    stack("down", "-v")
    assert docker("volume", "ls", "-q", "--filter", f"name={stack.project}_") == ""

    stack("up", "-d")
    assert wait_until_answered()["worker_id"] == "worker-0"
    for name, file in FILES.items():
        assert "No such file" in docker("exec", name, "cat", file, ok=False)
    assert feedback_count() == 0
    assert job_id not in get_text(f"{API}/jobs")

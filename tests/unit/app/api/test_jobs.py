"""The resource /jobs in process, on a real SQLite file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event

from tests.stubs import files, pool
from tests.stubs.gating import NOTHING_FITS
from tests.stubs.serving import serving, until
from tests.unit.app.api.test_service import application

JOBS = "/api/v1/jobs"
LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return application(
        tmp_path, max_body_bytes=5000, job_max_body_bytes=20_000, job_max_items=50, job_max_unfinished=2
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as found:
        await until(lambda: app.state.runtime.status == "ready")
        yield found


def refused(answer: httpx.Response, status: int, slug: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"/problems/{slug}"
    assert ("retry-after" in answer.headers) == (status == 429 or status >= 500)
    return str(answer.json()["detail"])


async def submitted(client: httpx.AsyncClient, *items: Any, **headers: str) -> str:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.post(JOBS, json={"items": items}, headers=sent)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    assert answer.headers["location"] == f"{JOBS}/{job_id}"
    return str(job_id)


async def seen(
    client: httpx.AsyncClient, job_id: str, check: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The job as soon as it looks like that."""
    async with asyncio.timeout(30):
        while True:
            job: dict[str, Any] = (await client.get(f"{JOBS}/{job_id}")).json()
            if check(job):
                return job
            await asyncio.sleep(0.02)


async def finished(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    return await seen(client, job_id, lambda job: job["finished_at"] is not None)


async def results(client: httpx.AsyncClient, job_id: str) -> list[dict[str, Any]]:
    answer = await client.get(f"{JOBS}/{job_id}/results")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_job_from_the_upload_to_its_results(client: httpx.AsyncClient) -> None:
    wrong = {"text": "x", "options": {"tsk": "a/b"}}
    job_id = await submitted(
        client, {"text": "neutral"}, wrong, {"text": "x", "description": NOTHING_FITS}, 7
    )
    job = await finished(client, job_id)
    assert set(job) == {
        "job_id", "state", "total", "done", "failed", "created_at", "finished_at", "eta_seconds",
            "owner",
    }  # fmt: skip
    assert (job["state"], job["total"], job["done"], job["failed"]) == ("succeeded", 4, 2, 2)
    assert job["eta_seconds"] is None
    lines = await results(client, job_id)
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert (lines[0]["result"], lines[0]["task"]) == ("neutral", files.SENTIMENT)
    assert lines[0]["request_id"] == f"{job_id}.0"
    assert lines[1]["error"]["type"] == "/problems/invalid-request"
    assert lines[1]["error"]["detail"].startswith("options.tsk: ")
    assert lines[2]["abstained"]["reason"] == "out_of_scope"
    assert lines[3]["error"]["status"] == 400
    judged = await client.post("/api/v1/feedback", json={"request_id": f"{job_id}.0", "score": 1})
    assert judged.status_code == 202


async def test_json_lines_are_taken_in_any_pieces(client: httpx.AsyncClient) -> None:
    text = "".join(f'{{"text": "Grüße {i}"}}\r\n\n' for i in range(40)).rstrip()

    async def pieces() -> AsyncIterator[bytes]:
        data = text.encode()
        for start in range(0, len(data), 7):
            yield data[start : start + 7]

    answer = await client.post(JOBS, content=pieces(), headers=LINES)
    assert answer.status_code == 202, answer.text
    job = await finished(client, answer.json()["job_id"])
    assert (job["total"], job["done"]) == (40, 40)


async def test_a_job_all_of_whose_items_fail_has_failed(client: httpx.AsyncClient) -> None:
    job = await finished(
        client, await submitted(client, {}, {"text": pool.BREAK, "options": {"task": "a/b"}})
    )
    assert (job["state"], job["done"], job["failed"]) == ("failed", 0, 2)


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"{", {}, 400, "body: "),
        (b"[]", {}, 400, "body: "),
        (b'{"items": []}', {}, 400, "items: "),
        (b'{"items": [1], "more": 1}', {}, 400, "more: "),
        (b'{"items": [%s]}' % (b"1," * 50 + b"1"), {}, 413, "items: there are more than 50"),
        (b'{"items": ["%s"]}' % (b"x" * 6000), {}, 413, "The body is longer than 5000"),
        (b"", LINES, 400, "items: there is none"),
        (b"\n \n", LINES, 400, "items: there is none"),
        (b'{"text": "x"}\n\n{"text"\n', LINES, 400, "line 3: "),
        (b'{"text": "\xff"}', LINES, 400, "line 1: "),
        (b'"\\ud800"', LINES, 400, "line 1: "),
        (b"1\n" * 51, LINES, 413, "items: there are more than 50"),
        (b'"%s"' % (b"x" * 6000), LINES, 413, "A line is longer than 5000"),
        (b" " * 100 + (b" " * 199 + b"\n") * 100, LINES, 413, "The body is longer than 20000"),
        (b"\n" * 300, LINES, 413, "The upload has too many blank lines"),
        (b"a=1", {"content-type": "application/x-www-form-urlencoded"}, 415, "The body must be"),
        (b'{"items": [1]}', {"idempotency-key": "a b"}, 400, "Idempotency-Key: "),
    ],
)
async def test_a_refused_upload_leaves_nothing(
    client: httpx.AsyncClient,
    tmp_path: Path,
    content: bytes,
    headers: dict[str, str],
    status: int,
    said: str,
) -> None:
    slug = {400: "invalid-request", 413: "content-too-large", 415: "unsupported-media-type"}[status]
    given = {"content-type": "application/json", **headers}
    for sent in (content, _in_pieces(content)):  # with a stated length, and without
        assert refused(await client.post(JOBS, content=sent, headers=given), status, slug).startswith(said)
    await until(lambda: _rows(tmp_path) == (0, 0))


async def _in_pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def _rows(folder: Path) -> tuple[int, int]:
    file = folder / "state" / "coordinator.sqlite3"
    if not file.exists():
        return (0, 0)
    connection = sqlite3.connect(file)
    try:
        query = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM job_items)"
        return tuple(connection.execute(query).fetchone())
    except sqlite3.OperationalError:  # no table yet
        return (0, 0)
    finally:
        connection.close()


async def test_the_same_key_and_body_are_the_same_job(client: httpx.AsyncClient) -> None:
    first = await submitted(client, {"text": "x"}, Idempotency_Key="k-1")
    await finished(client, first)
    assert await submitted(client, {"text": "x"}, Idempotency_Key="k-1") == first
    assert await submitted(client, {"text": "x"}, Idempotency_Key="k-2") != first
    other = await client.post(JOBS, json={"items": [{"text": "y"}]}, headers={"Idempotency-Key": "k-1"})
    refused(other, 409, "idempotency-conflict")


async def test_the_same_key_many_times_at_once_is_one_job(app: FastAPI, client: httpx.AsyncClient) -> None:
    app.state.jobs._max_unfinished = 100  # of jobs on their way in, all but one are forgotten
    made = await asyncio.gather(*(submitted(client, {"text": "x"}, Idempotency_Key="k") for _ in range(6)))
    assert len(set(made)) == 1


async def test_a_job_is_its_callers_alone(app: FastAPI, client: httpx.AsyncClient) -> None:
    job_id = await submitted(client, {"text": "x"})
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as other:
        for method, path in (("GET", ""), ("GET", "/results"), ("DELETE", "")):
            refused(await other.request(method, f"{JOBS}/{job_id}{path}"), 404, "unknown-job")
        assert (await other.get(JOBS)).json() == {"jobs": []}
    for nonsense in ("nonsense", "%00", "%ff", "a" * 3000, "0" * 32):
        refused(await client.get(f"{JOBS}/{nonsense}"), 404, "unknown-job")
    assert [job["job_id"] for job in (await client.get(JOBS)).json()["jobs"]] == [job_id]
    assert (await finished(client, job_id))["state"] == "succeeded"


async def test_cancelling_keeps_what_is_done_and_drops_the_rest(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    job_id = await submitted(client, {"text": "positive"}, *[{"text": pool.WAIT}] * 20)
    await seen(client, job_id, lambda job: job["done"] >= 1)
    for _ in range(2):
        job = (await client.delete(f"{JOBS}/{job_id}")).json()
        assert (job["state"], job["done"], job["failed"], job["total"]) == ("cancelled", 1, 0, 21)
        assert job["finished_at"] is not None
    assert [line["index"] for line in await results(client, job_id)] == [0]


async def test_a_caller_may_not_pile_jobs_up(client: httpx.AsyncClient) -> None:
    jobs = [await submitted(client, {"text": pool.WAIT}) for _ in range(2)]
    refused(await client.post(JOBS, json={"items": [{"text": "x"}]}), 429, "too-many-jobs")
    assert (await client.delete(f"{JOBS}/{jobs[0]}")).status_code == 200
    await submitted(client, {"text": pool.WAIT})


async def test_without_a_database_it_is_a_503_and_goes_on_without_a_restart(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    app = application(tmp_path)
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        refused(await client.post(JOBS, json={"items": [{"text": "x"}]}), 503, "storage-unavailable")
        refused(await client.get(f"{JOBS}/{'0' * 32}"), 503, "storage-unavailable")
        refused(await client.get(f"{JOBS}/{'0' * 32}/results"), 503, "storage-unavailable")
        refused(await client.delete(f"{JOBS}/{'0' * 32}"), 503, "storage-unavailable")
        (tmp_path / "state").unlink()
        assert (await finished(client, await submitted(client, {"text": "x"})))["state"] == "succeeded"
        assert 'mole_job_items_total{outcome="done"} 1.0' in (await client.get("/metrics")).text


async def test_a_full_disk_is_a_503_and_leaves_nothing(tmp_path: Path) -> None:
    app = application(tmp_path, job_concurrency=0)  # SQLAlchemy's events bear no connecting meanwhile
    lines = b'{"text": "%s"}\n' % (b"x" * 4000) * 40

    def full(connection: sqlite3.Connection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count=1")  # it takes the file's own count where that is higher
        cursor.close()

    async with serving(app) as client:
        job_id = await submitted(client, {"text": "x"})
        database = app.state.runtime.storage.database
        event.listen(database._engine.sync_engine, "connect", full)
        database.reconnect()  # to dispose of the pool would strand what others have in use
        refused(await client.post(JOBS, content=lines, headers=LINES), 503, "storage-unavailable")
        assert (await client.get(f"{JOBS}/{job_id}")).json()["state"] == "queued"
        await app.state.jobs.aclose()
        assert _rows(tmp_path) == (1, 1)
        event.remove(database._engine.sync_engine, "connect", full)
        database.reconnect()
        answer = await client.post(JOBS, content=lines, headers=LINES)
        assert (answer.status_code, answer.json()["total"]) == (202, 40)


async def test_a_stopped_coordinator_gives_its_items_back(tmp_path: Path) -> None:
    app = application(tmp_path)
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        job_id = await submitted(client, *[{"text": pool.WAIT}] * 3)
        await seen(client, job_id, lambda job: job["state"] == "running")
    connection = sqlite3.connect(tmp_path / "state" / "coordinator.sqlite3")
    rows = connection.execute("SELECT state, claimed_by, attempts FROM job_items").fetchall()
    connection.close()
    assert rows == [("pending", None, 0)] * 3


async def test_the_document_declares_what_can_be_answered(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    told = paths[JOBS]["post"]
    assert set(told["responses"]) == {
        "202", "400", "401", "403", "408", "409", "413", "415", "429", "431", "500", "503",
    }  # fmt: skip
    assert set(told["requestBody"]["content"]) >= {"application/json", "application/x-ndjson"}
    look = paths[f"{JOBS}/{{job_id}}"]["get"]["responses"]
    assert set(look) == {"200", "401", "403", "404", "429", "431", "500", "503"}
    assert set(paths[f"{JOBS}/{{job_id}}/results"]["get"]["responses"]["200"]["content"]) == {
        "application/x-ndjson"
    }

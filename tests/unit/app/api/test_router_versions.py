"""The resource /router in process, on a real SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.storage.storage import Storage
from tests.stubs import files
from tests.stubs.serving import serving, until
from tests.unit.app.api.test_service import CLASSIFY, JSON, application, problem

VERSIONS = "/api/v1/router/versions"
FEEDBACK = "/api/v1/router/feedback"
PROMOTE = "/api/v1/router/promote"
ROLLBACK = "/api/v1/router/rollback"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return application(tmp_path)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as found:
        await until(lambda: app.state.runtime.status == "ready")
        yield found


async def add(app: FastAPI, **given: Any) -> int:
    storage: Storage = app.state.runtime.storage
    made = {"meta": {}, "metrics": {"reasons": []}, "parent_id": None, "at": 1000.0} | given
    return await storage.router_versions.add(b"none", **made)


async def states(client: httpx.AsyncClient) -> dict[int, str]:
    return {row["version"]: row["state"] for row in (await client.get(VERSIONS)).json()["versions"]}


async def test_versions_are_promoted_and_taken_back(app: FastAPI, client: httpx.AsyncClient) -> None:
    assert (await client.get(VERSIONS)).json() == {"in_force": None, "refused": None, "versions": []}
    first, second = await add(app), await add(app, state="rejected", metrics={"reasons": ["worse"]})
    told = (await client.get(VERSIONS)).json()["versions"]
    assert [row["version"] for row in told] == [second, first]
    assert told[0]["metrics"] == {"reasons": ["worse"]}
    assert told[1] == {
        "version": first, "state": "candidate", "created_at": "1970-01-01T00:16:40.000+00:00",
        "promoted_at": None, "parent": None, "metrics": {"reasons": []},
    }  # fmt: skip
    assert (await client.post(PROMOTE, json={"version": first})).json() == {"live": first}
    assert (await client.post(PROMOTE, json={"version": second})).json() == {"live": second}
    assert await states(client) == {first: "retired", second: "live"}
    problem(await client.post(ROLLBACK, json={"version": first}), 409, "version-conflict")
    assert await states(client) == {first: "retired", second: "live"}
    assert (await client.post(ROLLBACK, json={"version": second})).json() == {"live": first}
    assert (await client.post(ROLLBACK, json={"version": first})).json() == {"live": None}
    problem(await client.post(ROLLBACK, json={"version": first}), 409, "version-conflict")


async def test_what_cannot_be_changed(client: httpx.AsyncClient) -> None:
    for path in (PROMOTE, ROLLBACK):
        for body in ({}, {"version": 0}, {"version": "x"}, {"version": 2**40}, {"version": 1, "x": 2}, 7):
            problem(await client.post(path, json=body), 400, "invalid-request")
    problem(await client.post(PROMOTE, json={"version": 9}), 404, "unknown-version")


@pytest.mark.parametrize("path", [PROMOTE, ROLLBACK])
async def test_a_page_of_another_host_changes_nothing(
    app: FastAPI, client: httpx.AsyncClient, path: str
) -> None:
    """Browsers send these bodies across hosts without asking first; JSON they do not."""
    await add(app)
    for headers in (
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
    ):
        answer = await client.post(path, content=b'{"version": 1}', headers=headers)
        problem(answer, 415, "unsupported-media-type")
    assert await states(client) == {1: "candidate"}


async def test_feedback_is_summed_up(client: httpx.AsyncClient) -> None:
    for number, label in enumerate(("positive", "neutral")):
        headers = JSON | {"x-request-id": f"r-{number}"}
        await client.post(CLASSIFY, json={"text": "positive", "description": "?"}, headers=headers)
        said = {"request_id": f"r-{number}", "correct_task": files.SENTIMENT, "correct_label": label}
        assert (await client.post("/api/v1/feedback", json=said)).status_code == 202
    found = (await client.get(FEEDBACK)).json()
    assert (found["rows"], found["read"]) == (2, 2)
    (shipped,) = found["by_version"]
    assert shipped["version"] is None
    assert (shipped["task_accuracy"], shipped["answer_accuracy"], shipped["mean_cost"]) == (1.0, 0.5, 1.0)
    assert found["answer_reliability"] == [{"confidence": 0.5, "accuracy": 0.5, "rows": 2}]


async def test_without_a_database_it_is_a_503(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    async with serving(application(tmp_path)) as client:
        for method, path in (("GET", VERSIONS), ("GET", FEEDBACK), ("POST", PROMOTE), ("POST", ROLLBACK)):
            answer = await client.request(method, path, json={"version": 1} if method == "POST" else None)
            problem(answer, 503, "storage-unavailable")


async def test_the_document_declares_what_can_be_answered(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in (PROMOTE, ROLLBACK):
        told = set(paths[path]["post"]["responses"])
        assert told == {
            "200", "400", "401", "403", "404", "408", "409", "413", "415", "429", "431", "500", "503",
        }  # fmt: skip
    told = set(paths["/api/v1/stats/traffic"]["get"]["responses"])
    assert told == {"200", "401", "403", "429", "431", "500", "503"}
    assert not any(path in paths for path in ("/", "/fleet", "/assets/{version}/{name}"))


async def test_traffic_counts_requests_and_answers(client: httpx.AsyncClient) -> None:
    await client.post(CLASSIFY, json={"text": "positive"})
    await client.post(CLASSIFY, json={})
    items = [{"text": "positive"}, {"text": "neutral"}]
    await client.post("/api/v1/classify/batch", json={"items": items})
    buckets = (await client.get("/api/v1/stats/traffic")).json()["buckets"]
    assert sum(bucket["requests"] for bucket in buckets) == 3
    assert sum(bucket["refused"] for bucket in buckets) == 1
    assert sum(bucket["answers"] for bucket in buckets) == 3
    assert {task for bucket in buckets for task in bucket["tasks"]} == {files.SENTIMENT}

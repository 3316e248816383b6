"""API keys at the door: every path, every kind of refusal, on a real SQLite file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from app.asgi.access import OPEN, need_of
from app.storage.api_keys import NewKey
from tests.stubs import pool
from tests.stubs.serving import serving, until
from tests.unit.app.api.test_service import CLASSIFY, JSON, application, problem

JOBS = "/api/v1/jobs"
BATCH = "/api/v1/classify/batch"
FREE = {
    "/", "/fleet", "/jobs", "/router", "/traffic", "/assets/{version}/{name}", "/docs", "/docs/start.js",
    "/docs/{name}", "/openapi.json", "/metrics", "/api/v1/health", "/api/v1/health/live",
    "/api/v1/health/ready",
}  # fmt: skip
"""Whoever adds a path here lets everybody in."""


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return application(tmp_path, audit_log=tmp_path / "audit.jsonl")


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as found:
        await until(lambda: app.state.runtime.status == "ready" and app.state.runtime.keyring.known)
        yield found


async def made(app: FastAPI, *scopes: str, **limits: Any) -> dict[str, str]:
    """Makes a key; returns the header that presents it."""
    runtime = app.state.runtime
    _, key = await runtime.storage.api_keys.create(NewKey("test", scopes, **limits), at=time.time())
    await runtime.keyring.refresh()
    return {"Authorization": f"Bearer {key}"}


def audited(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def every_route(app: FastAPI) -> list[Route]:
    """Also those of included routers, which the framework keeps as they are."""
    found: list[Route] = []
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        found += inner.routes if inner is not None else [route]
    return found


async def test_the_facade_asks_for_keys_and_counts_texts_in_openais_words(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    key = await made(app, "classify", quota_per_day=3)
    chat = {"model": "mole/auto", "messages": [{"role": "user", "content": "positive"}]}
    refused = await client.post("/v1/chat/completions", json=chat)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.json()["error"]["type"] == "authentication_error"
    other = await made(app, "feedback")
    refused = await client.post("/v1/chat/completions", json=chat, headers=other)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
    assert (await client.get("/v1/models", headers=other)).status_code == 200
    both = {"model": "mole/auto", "input": ["positive", "neutral"]}
    assert (await client.post("/v1/classify", json=both, headers=key)).status_code == 200
    assert (await client.post("/v1/classify", json=both, headers=key)).status_code == 429  # two would be four
    refused = await client.post("/v1/classify", json={**both, "input": "x"}, headers=key)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert int(refused.headers["retry-after"]) > 0


async def test_without_a_key_in_the_database_everything_is_open(client: httpx.AsyncClient) -> None:
    assert (await client.post(CLASSIFY, json={"text": "x"})).status_code == 200
    stale = {"Authorization": "Bearer whatever"}
    assert (await client.post(CLASSIFY, json={"text": "x"}, headers=stale)).status_code == 200
    assert (await client.get("/api/v1/health")).json()["checks"]["api_keys"] == "not required"


async def test_with_one_every_route_is_closed_but_those_that_hold_nothing(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    await made(app, "admin")
    asked = set()
    for route in every_route(app):
        path = route.path
        filled = path.replace("{", "").replace("}", "")
        for method in route.methods or ():
            status = (await client.request(method, filled)).status_code
            assert (status == 401) == (path not in FREE), f"{method} {path}: {status}"
            asked.add(path)
    assert {CLASSIFY, BATCH, JOBS, "/api/v1/stats", "/docs", "/metrics"} <= asked
    assert (await client.get("/nowhere")).status_code == 401
    assert (await client.get("/api/v1/health")).json()["checks"]["api_keys"] == "required"


async def test_who_is_refused_at_the_door_counts_for_the_route(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    await made(app, "classify")
    assert (await client.post(CLASSIFY, json={"text": "x"})).status_code == 401
    assert (await client.post("/api/v1/nowhere", json={})).status_code == 401
    counted = app.state.runtime.metrics.render().decode()
    assert f'mole_requests_total{{method="POST",route="{CLASSIFY}",status="401"}} 1.0' in counted
    assert 'mole_requests_total{method="POST",route="unmatched",status="401"} 1.0' in counted
    [bucket] = app.state.runtime.stats.traffic.answer().buckets
    assert (bucket.requests, bucket.refused) == (1, 1)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic abc", "Bearer no", "bearer\tno", "Bearer é", "Bearer " + "x" * 9000],
)
async def test_what_is_no_valid_key(app: FastAPI, client: httpx.AsyncClient, header: str) -> None:
    await made(app, "classify")
    answer = await client.post(CLASSIFY, json={"text": "x"}, headers={"Authorization": header.encode()})
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="mole"')


async def test_the_body_of_a_stranger_is_not_read(app: FastAPI, client: httpx.AsyncClient) -> None:
    await made(app, "classify")

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("it is read")
        yield b""

    answer = await client.post(CLASSIFY, content=body(), headers=JSON)
    problem(answer, 401, "unauthorized")
    assert "error" not in answer.headers["www-authenticate"]


async def test_each_scope_opens_its_own_paths(app: FastAPI, client: httpx.AsyncClient) -> None:
    classify, jobs = await made(app, "classify"), await made(app, "jobs")
    feedback, admin = await made(app, "feedback"), await made(app, "admin")
    body = {"text": "positive"}
    wanted: list[tuple[str, str, dict[str, Any], list[dict[str, str]], str]] = [
        ("POST", CLASSIFY, body, [classify, admin], "classify"),
        ("POST", "/api/v1/route", body, [classify, admin], "classify"),
        ("POST", BATCH, {"items": [body]}, [classify, admin], "classify"),
        ("POST", JOBS, {"items": [body]}, [jobs, admin], "jobs"),
        ("GET", JOBS, {}, [jobs, admin], "jobs"),
        ("POST", "/api/v1/feedback", {"request_id": "no", "score": 1}, [feedback, admin], "feedback"),
        ("GET", "/api/v1/tasks", {}, [classify, jobs, feedback, admin], "any"),
        ("GET", "/api/v1/workers", {}, [classify, jobs, feedback, admin], "any"),
        ("GET", "/api/v1/stats", {}, [classify, jobs, feedback, admin], "any"),
        ("POST", "/api/v1/router/versions/1/promote", {}, [admin], "admin"),
    ]
    for method, path, sent, may, scope in wanted:
        for key in (classify, jobs, feedback, admin):
            answer = await client.request(method, path, json=sent, headers=key)
            if key in may:
                assert answer.status_code not in (401, 403), path
            else:
                assert problem(answer, 403, "missing-scope")["required_scope"] == scope
                assert f'scope="{scope}"' in answer.headers["www-authenticate"]


async def test_a_revoked_key_is_refused_and_others_are_not(app: FastAPI, client: httpx.AsyncClient) -> None:
    first, second = await made(app, "classify"), await made(app, "classify")
    runtime = app.state.runtime
    one = runtime.keyring.find(first["Authorization"].removeprefix("Bearer ")).record.id
    await runtime.storage.api_keys.revoke(one, at=time.time())
    await runtime.keyring.refresh()
    answer = await client.post(CLASSIFY, json={"text": "x"}, headers=first)
    problem(answer, 401, "unauthorized")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert (await client.post(CLASSIFY, json={"text": "x"}, headers=second)).status_code == 200


async def test_the_rate_is_each_keys_own(app: FastAPI, client: httpx.AsyncClient) -> None:
    slow, other = await made(app, "classify", rate_per_minute=2), await made(app, "classify")
    for _ in range(2):
        assert (await client.get("/api/v1/tasks", headers=slow)).status_code == 200
    answer = await client.get("/api/v1/tasks", headers=slow)
    problem(answer, 429, "rate-limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert (await client.get("/api/v1/tasks", headers=other)).status_code == 200


async def test_the_quota_counts_texts_also_those_of_batches_and_jobs(
    app: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    key = await made(app, "classify", "jobs", quota_per_day=12)
    body = {"text": "positive"}
    vllm = {"model": "mole/auto", "input": ["positive"] * 2}
    assert (await client.post("/v1/classify", json=vllm, headers=key)).status_code == 200
    assert (await client.post(CLASSIFY, json=body, headers=key)).status_code == 200
    assert (await client.post(BATCH, json={"items": [body] * 4}, headers=key)).status_code == 200
    assert (await client.post(JOBS, json={"items": [body] * 3}, headers=key)).status_code == 202
    await app.state.runtime.keyring.refresh()
    with closing(sqlite3.connect(tmp_path / "state" / "coordinator.sqlite3")) as connection:
        assert connection.execute("SELECT usage_count FROM api_keys").fetchall() == [(10,)]
    problem(await client.post(BATCH, json={"items": [body] * 4}, headers=key), 429, "quota-exceeded")
    answer = await client.post(JOBS, json={"items": [body] * 4}, headers=key)
    problem(answer, 429, "quota-exceeded")
    assert int(answer.headers["retry-after"]) > 1
    for refused in (b'{"text": "positive"}\n' * 4, b'{"text": "positive"}\nno JSON'):
        lines = key | {"content-type": "application/x-ndjson"}
        assert (await client.post(JOBS, content=refused, headers=lines)).status_code >= 400
    # A job that is refused costs nothing: one text of the twelve is left.
    assert (await client.post(CLASSIFY, json=body, headers=key)).status_code == 200
    problem(await client.post(CLASSIFY, json=body, headers=key), 429, "quota-exceeded")
    assert (await client.get(JOBS, headers=key)).status_code == 200


async def test_jobs_are_their_keys_own_but_an_administrator_sees_all_and_that_is_told(
    app: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    mine, theirs, admin = await made(app, "jobs"), await made(app, "jobs"), await made(app, "admin")
    answer = await client.post(JOBS, json={"items": [{"text": pool.WAIT}]}, headers=mine)
    url = f"{JOBS}/{answer.json()['job_id']}"
    assert (await client.get(url, headers=mine)).status_code == 200
    for path in (url, url + "/results"):
        problem(await client.get(path, headers=theirs), 404, "unknown-job")
    problem(await client.delete(url, headers=theirs), 404, "unknown-job")
    assert (await client.get(JOBS, headers=theirs)).json()["jobs"] == []
    assert len((await client.get(JOBS, headers=admin)).json()["jobs"]) == 1
    assert (await client.get(url + "/results", headers=admin)).status_code == 200
    assert (await client.delete(url, headers=admin)).json()["state"] == "cancelled"
    told = [(line["event"], line["method"], line["path"], line["status"]) for line in audited(tmp_path)]
    assert told == [
        ("api.called", "GET", JOBS, 200),
        ("api.called", "GET", url + "/results", 200),
        ("api.called", "DELETE", url, 200),
    ]
    assert admin["Authorization"] not in (tmp_path / "audit.jsonl").read_text()


async def test_whoever_asks_for_a_change_of_the_service_is_told(
    app: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    promote, rollback = "/api/v1/router/promote", "/api/v1/router/rollback"
    assert (await client.post(promote, json={"version": 7})).status_code == 404  # no key exists: it is open
    lacking, admin = await made(app, "classify"), await made(app, "admin")
    await client.post(rollback, json={"version": 7})
    await client.post(rollback, json={"version": 7}, headers=lacking)
    await client.post(promote, json={"version": 7}, headers=admin)
    await client.get("/api/v1/router/versions", headers=admin)
    told = [(line["actor"].split(":")[0], line["path"], line["status"]) for line in audited(tmp_path)]
    assert told == [
        ("address", promote, 404), ("address", rollback, 401), ("key", rollback, 403), ("key", promote, 404),
    ]  # fmt: skip


async def test_the_same_idempotency_key_of_two_keys_is_two_jobs(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    ids = set()
    for key in (await made(app, "jobs"), await made(app, "jobs")):
        given = key | {"Idempotency-Key": "same"}
        answer = await client.post(JOBS, json={"items": [{"text": "x"}]}, headers=given)
        ids.add(answer.json()["job_id"])
    assert len(ids) == 2


async def test_settings_ask_for_keys_where_there_is_none_and_at_the_metrics(tmp_path: Path) -> None:
    app = application(tmp_path, require_api_key=True, metrics_require_key=True)
    async with serving(app) as client:
        problem(await client.post(CLASSIFY, json={"text": "x"}), 401, "unauthorized")
        problem(await client.get("/metrics"), 401, "unauthorized")
        key = await made(app, "feedback")
        assert (await client.get("/metrics", headers=key)).status_code == 200
        assert (await client.get("/api/v1/health/live")).status_code == 200


async def test_a_mount_point_opens_nothing(app: FastAPI) -> None:
    async with serving(app) as client:
        await made(app, "classify")
        below = httpx.ASGITransport(app, root_path="/mole")
        async with httpx.AsyncClient(transport=below, base_url="http://service") as mounted:
            problem(await mounted.post("/mole/api/v1/classify", json={"text": "x"}), 401, "unauthorized")
            assert (await mounted.get("/mole/api/v1/health/live")).status_code == 200
        problem(await client.post("/docs/../api/v1/classify", json={"text": "x"}), 401, "unauthorized")


async def test_keys_that_cannot_be_read_let_nobody_in(tmp_path: Path) -> None:
    app = application(tmp_path, database_url=f"sqlite:///{tmp_path}/experts_registry.json/x")
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        problem(await client.post(CLASSIFY, json={"text": "x"}), 503, "storage-unavailable")


async def test_the_document_says_where_a_key_is_needed(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            guarded = need_of(method.upper(), path) != OPEN
            assert ("security" in operation) == guarded
            if guarded:
                assert {"401", "403", "429", "503"} <= set(operation["responses"])
                assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]


def test_every_declared_path_is_below_the_api(app: FastAPI) -> None:
    declared = {route.path for route in every_route(app) if route.include_in_schema} - {"/openapi.json"}
    assert CLASSIFY in declared
    assert all(path.startswith(("/api/v1/", "/v1/")) for path in declared)


async def test_the_audit_log_takes_no_path_of_any_length(
    app: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await made(app, "admin")
    await client.post("/api/v1/router/" + "x" * 20_000)
    assert [len(line["path"]) for line in audited(tmp_path) if "path" in line] == [200]

"""The coordinator application in process: every resource, every kind of error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.services.experts_local import LocalExperts
from app.services.telemetry.metrics import Metrics
from app.settings import Settings
from moe_router import invalid_body
from moe_router.contracts import CoordinatorHealth, TasksAnswer, WorkersAnswer
from moe_router.errors import ModelAssetError
from moe_router.registry import Registry
from tests.stubs import files, pool
from tests.stubs.gating import NOTHING_FITS, StubGating
from tests.stubs.serving import serving, until

CLASSIFY = "/api/v1/classify"
JSON = {"content-type": "application/json"}


def local(_settings: Settings, metrics: Metrics) -> LocalExperts:
    return LocalExperts(lambda registry: pool.StubPool(registry, files.MODEL), metrics)


def application(folder: Path, **settings: Any) -> FastAPI:
    files.write(folder, files.mapping("http://127.0.0.1:9"))
    given = Settings(config_path=folder, service_mode="monolithic", **settings)
    return create_app(given, load_gating=StubGating.load, make_experts=local)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = application(tmp_path, max_text_chars=100, max_body_bytes=5000)
    async with serving(app) as found:
        await until(lambda: app.state.runtime.status == "ready")
        yield found


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status == 429 or status >= 500)
    assert answer.headers["x-mole-expert"] == "none"
    return body


async def test_an_answer_has_every_member_of_the_contract(client: httpx.AsyncClient) -> None:
    answer = await client.post(CLASSIFY, json={"text": "positive"}, headers={"X-Request-ID": "a.b:c_d-1"})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "a.b:c_d-1"
    assert answer.headers["x-mole-expert"] == "finance/sentiment_analysis@fin"
    assert float(answer.headers["x-mole-overhead-duration-ms"]) >= 0
    assert set(answer.json()) == {
        "request_id", "language", "domain", "task", "result", "confidence", "probabilities",
        "domain_probabilities", "entities", "abstained", "raw_response", "routing_path", "worker_id",
        "model_key", "processing_time_ms", "timings_ms",
    }  # fmt: skip


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, "é", "a\tb"])
async def test_an_insane_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.post(CLASSIFY, json={"text": "x"}, headers={"X-Request-ID": given.encode()})
    assert answer.headers["x-request-id"] not in ("", given)


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({}, "text"),
        ({"text": None}, "text"),
        ({"text": 3}, "text"),
        ({"text": ""}, "text"),
        ({"text": "   "}, "text"),
        ({"text": "a\0"}, "text"),
        ({"txt": "x", "text": "x"}, "txt"),
        ({"text": "x", "options": {"tsk": "a/b"}}, "options.tsk"),
        ({"text": "x", "options": {"task": "sentiment"}}, "options.task"),
        ({"text": "x", "options": {"language": "English"}}, "options.language"),
        ({"text": "x", "options": {"timeout_seconds": -1}}, "options.timeout_seconds"),
        ({"text": "x", "options": {"via": "magic"}}, "options.via"),
        ({"text": "x", "fields": {"q": 1}}, "fields.q"),
        ([], "body"),
        ("text", "body"),
    ],
)
async def test_mistakes_name_the_member(client: httpx.AsyncClient, body: Any, member: str) -> None:
    found = problem(await client.post(CLASSIFY, json=body), 400, "invalid-request")
    assert found["detail"].startswith(f"{member}: ")


async def test_very_many_mistakes_are_counted_not_listed(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalid_body, "READ_MISTAKES", 100)
    body = {"text": "x", **{f"k{number}": 1 for number in range(150)}}
    found = problem(await client.post(CLASSIFY, json=body), 400, "invalid-request")
    assert found["detail"] == "The body has 150 mistakes."
    assert found["errors"] == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe\x00",
        b'{"text": "\\ud800"}',
        b'{"text": "\xed\xa0\x80"}',
        b"[" * 2000 + b"]" * 2000,
        b'{"text": "x", "options": {"timeout_seconds": NaN}}',
        b'{"text": "x", "options": {"timeout_seconds": 1e999}}',
        b'{"text": "x", "options": {"timeout_seconds": ' + b"9" * 4500 + b"}}",
        b'{"items": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
    ],
)
@pytest.mark.parametrize("path", [CLASSIFY, "/api/v1/route", "/api/v1/classify/batch"])
async def test_hostile_bodies_are_refused(client: httpx.AsyncClient, path: str, raw: bytes) -> None:
    problem(await client.post(path, content=raw, headers=JSON), 400, "invalid-request")


async def test_other_refusals(client: httpx.AsyncClient) -> None:
    body = {"text": "x"}
    form = {"content-type": "application/x-www-form-urlencoded"}
    problem(await client.post(CLASSIFY, content=b"text=x", headers=form), 415, "unsupported-media-type")
    problem(await client.post(CLASSIFY, json={"text": "x" * 101}), 413, "content-too-large")
    problem(await client.post(CLASSIFY, content=b" " * 6000, headers=JSON), 413, "content-too-large")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    problem(await client.post(CLASSIFY, content=endless(), headers=JSON), 413, "content-too-large")
    unknown = problem(
        await client.post(CLASSIFY, json={**body, "options": {"task": "no/such"}}), 400, "unknown-task"
    )
    assert files.SENTIMENT in unknown["known_tasks"]
    french = {"task": files.GERMAN_ONLY, "language": "fr"}
    problem(await client.post(CLASSIFY, json={**body, "options": french}), 400, "unsupported-language")
    abstaining = {"text": "x", "description": NOTHING_FITS, "options": {"on_abstain": "error"}}
    assert problem(await client.post(CLASSIFY, json=abstaining), 422, "abstained")["reason"] == "out_of_scope"
    problem(await client.post(CLASSIFY, json={"text": pool.FULL}), 503, "overloaded")
    problem(await client.get("/nowhere"), 404, "not-found")
    refused = await client.get(CLASSIFY)
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "POST"


async def test_a_fault_of_ours_is_a_problem_too_and_tells_nothing(client: httpx.AsyncClient) -> None:
    found = problem(await client.post(CLASSIFY, json={"text": pool.BREAK}), 500, "internal-error")
    assert "engine" not in json.dumps(found)


async def test_a_batch_judges_each_item(client: httpx.AsyncClient) -> None:
    broken = {"text": pool.BREAK}
    items = [{"text": "neutral"}, {"text": ""}, None, {"text": pool.FULL}, broken, {"text": "positive"}]
    answer = await client.post("/api/v1/classify/batch", json={"items": items})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r.get("result") or r["error"]["status"] for r in results] == [
        "neutral",
        400,
        400,
        503,
        500,
        "positive",
    ]
    assert "engine" not in answer.text
    assert results[1]["error"]["type"] == "/problems/invalid-request"
    assert results[0]["request_id"] == answer.headers["x-request-id"] + ".0"


async def test_an_item_has_a_bounded_number_of_members(tmp_path: Path) -> None:
    app = application(tmp_path)
    wide = {str(n): "" for n in range(1001)}
    items = [wide, {"text": "x", "fields": wide}, {"text": "positive", "fields": {"n": "1"}}]
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        results = (await client.post("/api/v1/classify/batch", json={"items": items})).json()["results"]
    details = [result["error"]["detail"] for result in results[:2]]
    assert details == [
        "The item: has 1001 members; the limit is 1000.",
        "fields: has 1001 members; the limit is 1000.",
    ]
    assert results[2]["result"] == "positive"


@pytest.mark.parametrize("items", [[], [{"text": "x"}] * 101, {}, None])
async def test_a_batch_has_bounds(client: httpx.AsyncClient, items: Any) -> None:
    problem(await client.post("/api/v1/classify/batch", json={"items": items}), 400, "invalid-request")


async def test_a_caller_has_its_limit_and_the_house_has_its_own(tmp_path: Path) -> None:
    app = application(tmp_path, max_requests=3, max_requests_per_caller=2)
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        waiting = [asyncio.create_task(client.post(CLASSIFY, json={"text": pool.WAIT})) for _ in range(2)]
        await until(lambda: app.state.runtime.admission.requests == 2)
        problem(await client.post(CLASSIFY, json={"text": "x"}), 429, "too-many-requests")
        problem(await client.post("/api/v1/route", json={"text": "x"}), 429, "too-many-requests")
        batch = await client.post("/api/v1/classify/batch", content=b"{", headers=JSON)  # is not looked at
        problem(batch, 429, "too-many-requests")
        other = httpx.ASGITransport(app, client=("10.0.0.2", 1))
        async with httpx.AsyncClient(transport=other, base_url="http://service") as another:
            assert (await another.post(CLASSIFY, json={"text": "x"})).status_code == 200
            waiting.append(asyncio.create_task(another.post(CLASSIFY, json={"text": pool.WAIT})))
            await until(lambda: app.state.runtime.admission.requests == 3)
            problem(await another.post(CLASSIFY, json={"text": "x"}), 503, "overloaded")
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        assert app.state.runtime.admission.requests == 0


async def test_a_probe_that_is_left_out_is_told_and_serves_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def available() -> bool:
        tasks = (await client.get("/api/v1/tasks")).json()["tasks"]
        return bool(next(task["available"] for task in tasks if task["task_key"] == files.SENTIMENT))

    app = application(tmp_path)
    data = files.registry()
    data["tasks"][files.SENTIMENT]["probe"] = {"path": "p"}
    (tmp_path / "experts_registry.json").write_text(json.dumps(data))
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        monkeypatch.setattr(type(app.state.runtime.experts), "served", lambda *_: False)
        assert await available()
        app.state.runtime._gating.left_out = frozenset({files.SENTIMENT})
        assert not await available()
        checks = (await client.get("/api/v1/health")).json()["checks"]
        assert checks["gating"] == f"ok, without the probe of {files.SENTIMENT}"


async def test_what_can_be_asked_and_who_serves_it(client: httpx.AsyncClient) -> None:
    tasks = {t["task_key"]: t for t in (await client.get("/api/v1/tasks")).json()["tasks"]}
    assert tasks[files.SENTIMENT]["labels"] == files.LABELS
    assert tasks[files.SENTIMENT]["available"]
    assert tasks[files.GERMAN_ONLY]["languages"] == ["de"]
    assert (tasks[files.SENTIMENT]["kind"], tasks[files.PII]["kind"]) == ("classification", "extraction")
    workers = (await client.get("/api/v1/workers")).json()
    assert workers["workers"][0]["worker_id"] == "local"
    assert workers["workers"][0]["adapters"] == ["fin"]
    assert workers["mapping"]["refused"] is None
    await client.post(CLASSIFY, json={"text": "x"})
    stats = (await client.get("/api/v1/stats")).json()
    assert (stats["classified"], stats["by_task"]) == (1, {files.SENTIMENT: 1})
    metrics = (await client.get("/metrics")).text
    assert 'mole_requests_total{method="POST",route="/api/v1/classify",status="200"} 1.0' in metrics
    assert 'mole_worker_requests_total{outcome="ok",worker="local"} 1.0' in metrics
    assert 'mole_workers{state="healthy"} 1.0' in metrics
    assert "mole_encoder_passes_total 1.0" in metrics
    assert 'mole_worker_state{state="healthy",worker="local"} 1.0' in metrics
    assert "mole_requests_in_progress 0.0" in metrics
    assert 'mole_requests_waiting{stage="gating"} 0.0' in metrics
    assert "mole_configuration_refused 0.0" in metrics
    assert "mole_configuration_loaded_timestamp_seconds" in metrics
    assert 'mole_encoder_batch_size_bucket{le="+Inf"} 0.0' in metrics
    assert 'mole_description_cache_requests_total{result="hit"} 0.0' in metrics


async def test_health_tells_how_it_is(client: httpx.AsyncClient) -> None:
    for path in ("", "/live", "/ready"):
        answer = await client.get("/api/v1/health" + path)
        assert answer.status_code == 200
        assert answer.json()["status"] == "ready"
        assert answer.json()["mode"] == "monolithic"


async def test_it_lives_before_it_is_ready_and_tells_why_it_failed(tmp_path: Path) -> None:
    def broken(_registry: Registry, _settings: Settings) -> StubGating:
        raise ModelAssetError("lid.176.bin is missing")

    files.write(tmp_path, files.mapping("http://127.0.0.1:9"))
    app = create_app(Settings(config_path=tmp_path), load_gating=broken, make_experts=local)
    async with serving(app) as client:
        problem(await client.post(CLASSIFY, json={"text": "x"}), 503, "not-ready")
        await until(lambda: app.state.runtime.status == "failed")
        ready = await client.get("/api/v1/health/ready")
        assert (ready.status_code, ready.json()["detail"]) == (503, "lid.176.bin is missing")
        assert "retry-after" in ready.headers
        assert (await client.get("/api/v1/health/live")).status_code == 200


@pytest.mark.parametrize("path", ["/classify", "/route", "/tasks", "/workers"])
async def test_a_malformed_file_is_told_with_the_place_and_the_reason(tmp_path: Path, path: str) -> None:
    files.write(tmp_path, {"workers": {"w": {"url": 3, "base_model_key": "m"}}, "model_to_worker": {}})
    given = Settings(config_path=tmp_path, service_mode="monolithic")
    app = create_app(given, load_gating=StubGating.load, make_experts=local)
    async with serving(app) as client:
        body = {"json": {"text": "x"}} if path in ("/classify", "/route") else {}
        method = "POST" if body else "GET"
        found = problem(await client.request(method, "/api/v1" + path, **body), 503, "not-ready")
        for part in ("expert_machine_mapping.json:1", "$.workers.w.url", "valid string"):
            assert part in found["detail"]


async def test_the_document_declares_what_can_be_answered(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    classify = document["paths"]["/api/v1/classify"]["post"]
    assert {"200", "400", "413", "415", "422", "502", "503", "504"} <= set(classify["responses"])
    for status in ("502", "503", "504"):
        found = classify["responses"][status]
        assert "Retry-After" in found["headers"]
        assert found["content"]["application/problem+json"]["example"]["status"] == int(status)
    text = json.dumps(document)
    for path, model in {
        "/tasks": TasksAnswer, "/workers": WorkersAnswer, "/health": CoordinatorHealth,
        "/health/ready": CoordinatorHealth,
    }.items():  # fmt: skip
        told = document["paths"]["/api/v1" + path]["get"]["responses"]["200"]["content"]["application/json"]
        assert model.model_validate(told["example"]).model_dump(exclude_none=True) == told["example"]
    for reference in set(_references(document)):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference
    assert "ClassifyRequest" in text
    items = document["components"]["schemas"]["BatchRequest"]["properties"]["items"]
    assert items["items"] == {"$ref": "#/components/schemas/ClassifyRequest"}
    assert (items["minItems"], items["maxItems"]) == (1, 100)


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [r for value in node.values() for r in _references(value)]
    return [r for value in node for r in _references(value)] if isinstance(node, list) else []


def test_importing_the_application_needs_neither_torch_nor_the_database() -> None:
    import subprocess
    import sys

    code = "import sys, app.main; sys.exit(bool({'torch', 'transformers', 'sqlalchemy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

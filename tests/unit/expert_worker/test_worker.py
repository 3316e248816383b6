"""The worker application in process, over a stub pool."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from expert_worker import examples, service
from expert_worker.main import create_app
from expert_worker.service import Service
from expert_worker.settings import Settings
from moe_router.contracts import ExpertAnswer, ExpertBatchAnswer, ExpertTasksAnswer, WorkerHealth
from moe_router.errors import ModelAssetError
from moe_router.experts.engines.base import OutOfMemoryError, ServerAwayError
from moe_router.registry import Registry
from tests.stubs import files, pool
from tests.stubs.serving import serving, until

CLASSIFY = "/api/v1/expert/classify"
BODY = {"task_key": files.SENTIMENT, "text": "neutral", "language": "en"}


class Scene:
    def __init__(self, client: httpx.AsyncClient, service: Service, stub: pool.StubPool) -> None:
        self.client = client
        self.service = service
        self.stub = stub

    async def ask(self, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        return await self.client.post(CLASSIFY, json={**BODY, **changes}, headers=headers)


@asynccontextmanager
async def scene_of(folder: Path, *, loaded: bool = True, **settings: Any) -> AsyncIterator[Scene]:
    files.write(folder, files.mapping("http://x"))
    stubs: list[pool.StubPool] = []

    def build(registry: Registry, given: Settings) -> pool.StubPool:
        stub = pool.StubPool(registry, given.model_key, given.worker_id)
        if not loaded:
            stub.may_load.clear()
        stubs.append(stub)
        return stub

    app = create_app(Settings(model_key=files.MODEL, config_path=folder, **settings), build_pool=build)
    async with serving(app) as client:
        service = app.state.service
        await until(lambda: bool(stubs) and service.status == "ready" if loaded else bool(stubs))
        yield Scene(client, service, stubs[0])


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path, max_text_chars=100, max_body_bytes=5000) as found:
        yield found


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{slug}"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status >= 500)
    assert answer.headers["x-mole-expert"] == "none"
    return body


async def test_the_thread_that_loads_is_gone_when_that_is_done(scene: Scene) -> None:
    """What computes there leaves nothing behind, see own_thread."""
    assert scene.stub.loaded_in is not None
    scene.stub.loaded_in.join(5)
    assert not scene.stub.loaded_in.is_alive()


async def test_the_caller_reaches_the_queue(scene: Scene) -> None:
    await scene.ask({"X-MoLE-Caller": "abc"})
    await scene.ask()
    assert scene.stub.callers == ["abc", ""]


async def test_an_answer(scene: Scene) -> None:
    answer = await scene.ask({"X-Request-ID": "mine"}, return_probabilities=True)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["result"], body["worker_id"], body["model_key"]) == ("neutral", "worker-0", files.MODEL)
    assert body["request_id"] == answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-mole-expert"] == f"{files.SENTIMENT}@fin"
    assert float(answer.headers["x-mole-overhead-duration-ms"]) >= 0
    assert (await scene.ask(request_id="in-body")).json()["request_id"] == "in-body"


@pytest.mark.parametrize(
    ("changes", "status", "slug"),
    [
        ({"text": ""}, 400, "invalid-request"),
        ({"text": "  "}, 400, "invalid-request"),
        ({"text": "a\0"}, 400, "invalid-request"),
        ({"text": None}, 400, "invalid-request"),
        ({"language": "English"}, 400, "invalid-request"),
        ({"more": 1}, 400, "invalid-request"),
        ({"task_key": "no/such"}, 400, "unknown-task"),
        ({"text": "x" * 101}, 413, "content-too-large"),
        ({"text": "x" * 6000}, 413, "content-too-large"),
        ({"text": pool.FULL}, 503, "overloaded"),
        ({"text": pool.BREAK}, 500, "internal-error"),
    ],
)
async def test_refusals(scene: Scene, changes: dict[str, Any], status: int, slug: str) -> None:
    problem(await scene.ask(**changes), status, slug)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 2000, b'{"text": "\\ud800"}'])
async def test_hostile_bodies(scene: Scene, raw: bytes) -> None:
    headers = {"content-type": "application/json"}
    problem(await scene.client.post(CLASSIFY, content=raw, headers=headers), 400, "invalid-request")
    problem(
        await scene.client.post(CLASSIFY, content=raw, headers={"content-type": "text/plain"}),
        415,
        "unsupported-media-type",
    )


async def test_no_post_takes_what_a_foreign_page_can_send(scene: Scene) -> None:
    paths = (await scene.client.get("/openapi.json")).json()["paths"]
    posts = {path: found["post"]["responses"] for path, found in paths.items() if "post" in found}
    assert {CLASSIFY, CLASSIFY + "/batch"} <= posts.keys()
    body = json.dumps({**BODY, "items": [BODY]}).encode()
    for path, responses in posts.items():
        assert "415" in responses
        for declared in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            headers = {} if declared is None else {"content-type": declared}
            answer = await scene.client.post(path, content=body, headers=headers)
            told = problem(answer, 415, "unsupported-media-type")
            assert "-H 'Content-Type: application/json'" in told["detail"]
    for declared in ("application/json; charset=utf-8", "application/vnd.mine+json"):
        answer = await scene.client.post(
            CLASSIFY, content=json.dumps(BODY).encode(), headers={"content-type": declared}
        )
        assert answer.status_code == 200


async def test_a_batch_judges_each_item(scene: Scene) -> None:
    full, broken = {**BODY, "text": pool.FULL, "request_id": "mine"}, {**BODY, "text": pool.BREAK}
    items = [BODY, full, 7, broken, {**BODY, "text": "positive"}]
    answer = await scene.client.post(CLASSIFY + "/batch", json={"items": items})
    results = answer.json()["results"]
    told = [r.get("result") or r["error"]["status"] for r in results]
    assert told == ["neutral", 503, 400, 500, "positive"]
    ids = [results[1]["error"]["request_id"], results[2]["error"]["request_id"]]
    assert ids == ["mine", answer.headers["x-request-id"] + ".2"]


async def test_what_it_serves(scene: Scene) -> None:
    body = (await scene.client.get("/api/v1/expert/tasks")).json()
    assert (body["worker_id"], body["model_key"]) == ("worker-0", files.MODEL)
    served = {task["task_key"]: task for task in body["tasks"]}
    assert served[files.SENTIMENT]["adapters"] == ["fin"]
    assert served[files.GERMAN_ONLY]["languages"] == ["de"]


async def test_a_shorter_deadline_is_kept(scene: Scene) -> None:
    answer = await scene.ask({"X-MoLE-Timeout-Ms": "200"}, text=pool.WAIT)
    problem(answer, 504, "deadline-exceeded")
    assert float(answer.headers["x-mole-overhead-duration-ms"]) < 150  # the wait is not the service's own
    assert scene.stub.cancelled == 1
    for wrong in ("", "soon", "-1", "1.5", "9" * 40):
        problem(await scene.ask({"X-MoLE-Timeout-Ms": wrong}), 400, "invalid-request")


async def test_the_token_guards_the_experts_and_nothing_else(tmp_path: Path) -> None:
    async with scene_of(tmp_path, token="s3cret") as scene:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            answer = await scene.ask(header)
            problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert (await scene.client.get("/api/v1/expert/tasks", headers=header)).status_code == 401
        assert (await scene.ask({"Authorization": "bearer s3cret"})).status_code == 200
        assert (await scene.client.get("/api/v1/health/ready")).status_code == 200
        assert (await scene.client.get("/metrics")).status_code == 200


async def test_it_lives_at_once_and_is_ready_after_the_warm_up(tmp_path: Path) -> None:
    async with scene_of(tmp_path, loaded=False) as scene:
        await until(lambda: scene.service.progress == 0.5)
        assert (await scene.client.get("/api/v1/health/live")).status_code == 200
        ready = await scene.client.get("/api/v1/health/ready")
        assert ready.status_code == 503
        assert (ready.json()["status"], ready.json()["progress"]) == ("loading", 0.5)
        assert ready.json()["detail"] == "reading weights"
        problem(await scene.ask(), 503, "not-ready")
        assert (await scene.client.get("/api/v1/expert/tasks")).json()["tasks"] == []
        scene.stub.may_load.set()
        await until(lambda: scene.service.status == "ready")
        assert scene.stub.warmed
        assert (await scene.client.get("/api/v1/health/ready")).json()["progress"] == 1.0


async def test_it_tells_why_it_cannot_serve(tmp_path: Path) -> None:
    def broken(_registry: Registry, _settings: Settings) -> pool.StubPool:
        raise ModelAssetError("no such folder: /models/x")

    files.write(tmp_path, files.mapping("http://x"))
    app = create_app(Settings(model_key=files.MODEL, config_path=tmp_path), build_pool=broken)
    async with serving(app) as client:
        await until(lambda: app.state.service.status == "failed")
        ready = await client.get("/api/v1/health/ready")
        assert (ready.status_code, ready.json()["detail"]) == (503, "no such folder: /models/x")
        found = problem(await client.post(CLASSIFY, json=BODY), 503, "not-ready")
        assert found["detail"] == "The worker is failed: no such folder: /models/x"


async def test_a_worker_that_failed_begins_anew_when_the_registry_is_corrected(tmp_path: Path) -> None:
    stubs: list[pool.StubPool] = []

    def build(registry: Registry, settings: Settings) -> pool.StubPool:
        if settings.model_key not in registry.base_models:
            raise ModelAssetError("the registry has no such base model")
        stubs.append(pool.StubPool(registry, settings.model_key))
        stubs[-1].broken = pool.BREAKING in registry.tasks
        return stubs[-1]

    path, _ = files.write(tmp_path, files.mapping("http://x"))
    good = path.read_text(encoding="utf-8")
    task = {"base_model_key": "other", "label_set": ["a", "b"]}
    other = {"base_models": {"other": {"hf_name": "x"}}, "tasks": {files.SENTIMENT: task}}
    breaking = json.loads(good)
    breaking["tasks"][pool.BREAKING] = breaking["tasks"][files.SENTIMENT]
    path.write_text("{", encoding="utf-8")
    app = create_app(Settings(model_key=files.MODEL, config_path=tmp_path), build_pool=build)
    async with serving(app) as client:
        service = app.state.service
        await until(lambda: service.failed)
        for bad, reason in ((other, "no such base model"), (breaking, "RuntimeError")):
            path.write_text(json.dumps(bad), encoding="utf-8")
            await until(lambda reason=reason: service.failed and reason in service.detail)
            assert (await client.get("/api/v1/health/ready")).json()["status"] == "failed"
        assert stubs[-1].closed
        path.write_text(good, encoding="utf-8")
        await until(lambda: service.status == "ready")
        assert service.detail is None
        assert (await client.post(CLASSIFY, json=BODY)).status_code == 200


async def test_a_draining_worker_takes_nothing_new(scene: Scene) -> None:
    waiting = asyncio.create_task(scene.ask(text=pool.WAIT))
    await until(lambda: scene.stub.depth == 1)
    scene.service.drain.draining = True
    problem(await scene.ask(), 503, "not-ready")
    assert (await scene.client.get("/api/v1/health/ready")).json()["status"] == "draining"
    scene.stub.gate.set()
    assert (await waiting).status_code == 200
    assert scene.service.drain.in_flight == 0


async def test_metrics_count_requests_and_experts(scene: Scene) -> None:
    await scene.ask()
    await scene.ask(text=pool.FULL)
    text = (await scene.client.get("/metrics")).text
    assert 'mole_requests_total{route="/api/v1/expert/classify",status="200"} 1.0' in text
    assert f'mole_expert_requests_total{{outcome="overloaded",task="{files.SENTIMENT}"}} 1.0' in text
    assert "mole_ready 1.0" in text


async def test_the_document_is_whole(scene: Scene) -> None:
    document = (await scene.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    item = schemas["ExpertBatchRequest"]["properties"]["items"]["items"]
    assert item == {"$ref": "#/components/schemas/ExpertRequest"}
    assert "ExpertRequest" in schemas
    assert {"200", "401", "413", "503", "504"} <= set(document["paths"][CLASSIFY]["post"]["responses"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "500" in operation["responses"], path
            assert operation["responses"]["200"]["content"]["application/json"]["example"], path
    assert ExpertAnswer.model_validate(examples.CLASSIFY).model_dump() == examples.CLASSIFY
    assert ExpertTasksAnswer.model_validate(examples.TASKS).model_dump() == examples.TASKS
    assert WorkerHealth.model_validate(examples.HEALTH).model_dump() == examples.HEALTH
    assert ExpertBatchAnswer.model_validate(examples.BATCH)
    assert "#/components/schemas/Problem" in json.dumps(document)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings()
    monkeypatch.setenv("WORKER_MODEL_KEY", "llama-2-7b-hf")
    monkeypatch.setenv("WORKER_ID", "worker-7")
    monkeypatch.setenv("CONFIG_PATH", str(tmp_path))
    monkeypatch.setenv("MAX_CONCURRENT_GPU_REQUESTS", "2")
    monkeypatch.setenv("MOLE_WORKER_TOKEN", "s3cret")
    found = Settings()
    assert (found.model_key, found.worker_id, found.max_concurrent) == ("llama-2-7b-hf", "worker-7", 2)
    assert found.registry_file == tmp_path / "experts_registry.json"
    assert "s3cret" not in repr(found)


async def test_the_pools_counts_are_told(scene: Scene) -> None:
    await scene.ask()
    text = (await scene.client.get("/metrics")).text
    assert 'mole_batch_size_bucket{le="1"} 1.0' in text
    assert "mole_batch_size_count 1.0" in text
    assert 'mole_texts_truncated_total{task="a/long"} 2.0' in text
    assert "mole_ready 1.0" in text


async def test_an_edited_registry_is_served_and_a_bad_edit_refused(scene: Scene) -> None:
    path = scene.service.settings.registry_file
    data = json.loads(path.read_text(encoding="utf-8"))
    task = data["tasks"][files.SENTIMENT]
    path.write_text(json.dumps({**data, "tasks": {**data["tasks"], "social/new": task}}), encoding="utf-8")
    await until(lambda: "social/new" in scene.stub.registry.tasks)
    answer = await scene.client.get("/api/v1/expert/tasks")
    served = [task.task_key for task in ExpertTasksAnswer.model_validate_json(answer.content).tasks]
    assert "social/new" in served
    breaks = {**data["tasks"], "social/new": task, pool.BREAKING: task}
    for bad in (
        "{",
        json.dumps({**data, "tasks": {"no-slash": task}}),
        json.dumps({**data, "tasks": breaks}),
    ):
        path.write_text(bad, encoding="utf-8")
        await until(lambda: "refused" in (scene.service.detail or ""))
        assert "social/new" in scene.stub.registry.tasks
        assert scene.service.status == "ready"
        path.write_text(
            json.dumps({**data, "tasks": {**data["tasks"], "social/new": task}}), encoding="utf-8"
        )
        await until(lambda: scene.service.detail is None)


async def test_an_edit_that_fails_for_a_passing_reason_is_tried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RETRY_S", 0.01)
    reasons: list[Exception] = [ServerAwayError("away"), ServerAwayError("still away")]
    take = scene.stub.reload

    async def reload(registry: Registry) -> None:
        if reasons:
            raise reasons.pop()
        await take(registry)

    monkeypatch.setattr(scene.stub, "reload", reload)
    await scene.service.reload()
    assert not reasons
    assert scene.service.detail is None
    reasons += [ServerAwayError("not asked for"), OutOfMemoryError("full")]
    await scene.service.reload()  # would be full the next time, too, and cost those who are served
    assert len(reasons) == 1
    assert "refused" in str(scene.service.detail)


async def test_the_documents_page_asks_no_other_host(scene: Scene) -> None:
    answer = await scene.client.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    asked = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
    assert len(asked) == 4
    assert "//" not in answer.text
    for address in asked:
        assert (await scene.client.get("/" + address)).status_code == 200, address
    assert "//" not in (await scene.client.get("/docs/start.js")).text
    for path in ("/docs/consts.py", "/docs/..%2Fconsts.py", "/redoc", "/docs/oauth2-redirect"):
        assert (await scene.client.get(path)).status_code == 404
